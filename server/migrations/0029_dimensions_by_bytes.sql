-- The same dimensions, read from pgvector's binary form (dimensions, entries, nothing, then the index of each entry as a big-endian
-- int4) instead of out of the text, which took most of the time of building a segment's inverted indexes. Its body is not a string:
-- PostgreSQL 17 builds indexes with a search path that has nobody's functions in it, and here they are looked up once.
create or replace function dimensions_of(weights sparsevec) returns int[] language sql immutable strict parallel safe
return array(
  select (get_byte(bytes, at) << 24) | (get_byte(bytes, at + 1) << 16) | (get_byte(bytes, at + 2) << 8) | get_byte(bytes, at + 3)
  from sparsevec_send(weights) bytes, generate_series(12, 11 + 4 * ((get_byte(bytes, 6) << 8) | get_byte(bytes, 7)), 4) at
);
