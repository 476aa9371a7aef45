-- Jobs: what they have from the start and are called, and what graphile-worker is asked.

--!include job-policy.sql
--!include worker-schema.sql
