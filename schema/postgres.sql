-- The records of all instances, in one table to which rows are only added.
--
--   securefiles schema postgres | psql -v ON_ERROR_STOP=1 OWNER'S-URL
--
-- The service's role needs INSERT alone, and one that searches needs SELECT alone:
--
--   CREATE ROLE securefiles LOGIN PASSWORD '…';
--   GRANT INSERT ON securefiles_audit TO securefiles;
--   GRANT SELECT ON securefiles_audit TO auditors;
CREATE TABLE IF NOT EXISTS securefiles_audit (
    -- Where the record stands: the file is told by a hash of its first line, so that it
    -- is the same when it is rotated and compressed. What is sent twice is stored once.
    file     uuid        NOT NULL,
    position bigint      NOT NULL,
    -- The host and the path of the audit file.
    instance text        NOT NULL,
    -- For indexes: members of the record, at most 500 characters of each, without U+0000.
    time     timestamptz NOT NULL,
    type     text        NOT NULL,
    request  text        NOT NULL,
    subject  text        NOT NULL,
    download text        NOT NULL,
    path     text        NOT NULL,
    -- The record as it stands in the file, byte for byte: a JSON object.
    line     text        NOT NULL,
    PRIMARY KEY (file, position)
);
CREATE INDEX IF NOT EXISTS securefiles_audit_time ON securefiles_audit (time);
CREATE INDEX IF NOT EXISTS securefiles_audit_request ON securefiles_audit (request);
CREATE INDEX IF NOT EXISTS securefiles_audit_subject ON securefiles_audit (subject, time);
CREATE INDEX IF NOT EXISTS securefiles_audit_path ON securefiles_audit (path text_pattern_ops, time);
