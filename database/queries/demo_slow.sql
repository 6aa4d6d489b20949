-- $1 city: a question without an index, asked again and again.
SELECT count(*), avg(price) FROM streamgauge_demo.offers WHERE city = $1
