-- Reading what the feed wrote: what the generated columns and constraints of the tables below need.

--!include values.sql
--!include location-key.sql
