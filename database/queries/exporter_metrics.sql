-- All metrics and the layouts of histograms.
SELECT m.metric_id, m.name, m.kind, m.help, m.unit, m.merge, m.live,
       coalesce((SELECT jsonb_agg(jsonb_build_array(l.layout_id, l.retired_at IS NOT NULL, to_jsonb(l.bounds))
                                  ORDER BY l.layout_id)
                   FROM layouts l WHERE l.metric_id = m.metric_id), '[]') AS layouts
  FROM metrics m ORDER BY m.name
