-- Monitoring: the figures, and telling people.

create table tickets_ops.announced_health (
  one boolean primary key default true check (one),
  ok boolean,
  since timestamptz
);
comment on table tickets_ops.announced_health is 'What people were told last of health.ok (ALERT_WEBHOOK_URL): one row, none before the first maintenance with that setting.';
comment on column tickets_ops.announced_health.one is 'Makes it one row.';
comment on column tickets_ops.announced_health.ok is 'health.ok, as it was announced. NULL: nothing was.';
comment on column tickets_ops.announced_health.since is 'When it turned.';

--!include alerts.sql
--!include storage.sql
--!include metrics.sql
