-- What each signal said last.
SELECT signal, collected_at, status, detail FROM signals ORDER BY signal
