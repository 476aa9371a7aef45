-- After a reset of a scratch database by graphile-migrate (.gmrc). A real one gets it by the DBA, or by the first migration.
create extension if not exists postgis;
