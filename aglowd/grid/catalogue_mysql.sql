-- The statements on the surveys database. {…}: what of it there is in this database, made of names in catalogue_mysql_text.py.

-- name: columns
SELECT table_name AS t, column_name AS c FROM information_schema.columns
WHERE table_schema = DATABASE() AND table_name IN ('observations', 'fields', 'aglowd_writes');

-- name: engine
SELECT engine AS e FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = 'observations';

-- name: rows
SELECT {columns} FROM observations AS o LEFT JOIN fields AS f ON f.id = o.field ORDER BY o.id LIMIT {most};

-- One number of 64 bits for all that `rows` would say: the server reads a few thousand rows, and sends one.
-- name: stamp
SELECT COUNT(*), BIT_XOR(CAST(CONV(LEFT(MD5(CONCAT_WS('|', {values})), 16), 16, 10) AS UNSIGNED))
FROM observations AS o LEFT JOIN fields AS f ON f.id = o.field;

-- name: lock
SELECT GET_LOCK(%s, {seconds});

-- name: unlock
SELECT RELEASE_LOCK(%s);

-- name: look
SELECT o.status, o.field, {key} FROM observations AS o WHERE o.id = %s;

-- name: look_and_hold
SELECT o.status, o.field, {key} FROM observations AS o WHERE o.id = %s FOR UPDATE;

-- Compared byte by byte: most databases take DI_Processed and DI_processed for the same word. {key}: the key must still be the
-- one that was looked at, too; where a row cannot be held, nothing else tells a write of the status that is there from the next.
-- name: write
UPDATE observations SET status = %s{more} WHERE id = %s AND COALESCE(CAST(status AS BINARY), '') = %s{key};

-- name: make_writes
CREATE TABLE aglowd_writes (
  observation VARCHAR(64) NOT NULL PRIMARY KEY,
  status VARCHAR(64) NOT NULL,
  write_key VARCHAR(500) NOT NULL,
  daemon VARCHAR(255) NOT NULL,
  at VARCHAR(40) NOT NULL
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- name: get_write
SELECT status, write_key, daemon FROM aglowd_writes WHERE observation = %s;

-- name: put_write
REPLACE INTO aglowd_writes (observation, status, write_key, daemon, at) VALUES (%s, %s, %s, %s, %s);
