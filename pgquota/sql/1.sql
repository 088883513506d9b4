-- What the tables of a store are like in version 1. :schema stands for the name of the schema, as an identifier.

CREATE TABLE :schema.state (
	only_row         boolean  PRIMARY KEY DEFAULT true CHECK (only_row),
	schema_version   integer  NOT NULL,
	saved_revision   bigint   NOT NULL DEFAULT 0,
	saved_at         text     NOT NULL DEFAULT '',
	generation_ahead bigint   NOT NULL DEFAULT 0
);
COMMENT ON TABLE :schema.state IS 'one row: the version of these tables, and when a whole state was last saved';
COMMENT ON COLUMN :schema.state.generation_ahead IS 'by how much the generations of saved states are ahead of the revisions';

CREATE SEQUENCE :schema.revisions;

-- A row for each quota. The book is json and not jsonb: it stays, byte for byte, what the library wrote, as in its JSON
-- file, the server takes and hands it out without rebuilding it, and what is not JSON cannot be stored.
CREATE TABLE :schema.books (
	quota      text        COLLATE "C" PRIMARY KEY,
	revision   bigint      NOT NULL,
	format     integer     NOT NULL,
	decided_at timestamptz NOT NULL,
	book       json        NOT NULL
) WITH (fillfactor = 50);
COMMENT ON COLUMN :schema.books.revision IS 'another one with every change';
COMMENT ON COLUMN :schema.books.format IS 'the version of the JSON form of the book';
COMMENT ON COLUMN :schema.books.decided_at IS 'the time of the last change';

CREATE TABLE :schema.finished_days (
	quota         text        COLLATE "C" NOT NULL,
	starts_at     timestamptz NOT NULL,
	utc_offset    integer     NOT NULL,
	day           date        NOT NULL,
	calls         bigint      NOT NULL,
	denied        bigint      NOT NULL,
	expired       bigint      NOT NULL,
	used          jsonb       NOT NULL,
	estimated     jsonb       NOT NULL,
	peak_reserved jsonb       NOT NULL,
	denied_by     jsonb       NOT NULL,
	alerts        jsonb       NOT NULL,
	in_history    boolean     NOT NULL,
	PRIMARY KEY (quota, starts_at)
);
COMMENT ON TABLE :schema.finished_days IS 'finished days of every quota; nothing but a Save deletes any';
COMMENT ON COLUMN :schema.finished_days.utc_offset IS 'of the zone in which the day began, in seconds';
COMMENT ON COLUMN :schema.finished_days.in_history IS 'false: copied from a book, which has it too';

-- write changes books that have not changed since they were read, or fails. books has null where a quota was only looked
-- at, and '' where its book is to be dropped; revisions has 0 where there was no book. It is a function so that a change
-- and the COMMIT after it need no answer in between: what it refuses fails the transaction.
CREATE FUNCTION :schema.write(
	quotas text[], revisions bigint[], books text[], book_format integer, decided_micros bigint, until_micros bigint, days text
) RETURNS void LANGUAGE plpgsql AS $body$
DECLARE
	next    bigint;
	wanted  bigint;
	written bigint;
	changed bigint := 0;
BEGIN
	PERFORM FROM unnest(quotas, revisions, books) AS seen (quota, revision, book)
		LEFT JOIN :schema.books AS stored ON stored.quota = seen.quota
		WHERE coalesce(stored.revision, 0) <> seen.revision;
	IF FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'QU001', MESSAGE = 'the books have changed since they were read';
	END IF;
	next := nextval(:sequence);
	SELECT count(*) INTO wanted FROM unnest(books) AS seen (book) WHERE book IS NOT NULL;

	UPDATE :schema.books AS stored
		SET revision = next, format = book_format, book = seen.book::json,
			decided_at = timestamptz 'epoch' + decided_micros * interval '1 microsecond'
		FROM unnest(quotas, revisions, books) AS seen (quota, revision, book)
		WHERE stored.quota = seen.quota AND stored.revision = seen.revision AND seen.book <> '';
	GET DIAGNOSTICS written = ROW_COUNT;
	changed := changed + written;

	INSERT INTO :schema.books (quota, revision, format, decided_at, book)
		SELECT seen.quota, next, book_format, timestamptz 'epoch' + decided_micros * interval '1 microsecond', seen.book::json
		FROM unnest(quotas, revisions, books) AS seen (quota, revision, book)
		WHERE seen.revision = 0 AND seen.book <> ''
		ON CONFLICT DO NOTHING;
	GET DIAGNOSTICS written = ROW_COUNT;
	changed := changed + written;

	DELETE FROM :schema.books AS stored USING unnest(quotas, revisions, books) AS seen (quota, revision, book)
		WHERE stored.quota = seen.quota AND stored.revision = seen.revision AND seen.book = '';
	GET DIAGNOSTICS written = ROW_COUNT;
	changed := changed + written;

	IF changed <> wanted THEN
		RAISE EXCEPTION USING ERRCODE = 'QU001', MESSAGE = 'the books have changed since they were read';
	END IF;
	IF days IS NOT NULL THEN
		PERFORM :schema.finish(days, false);
	END IF;
	IF extract(epoch FROM clock_timestamp()) * 1000000 >= until_micros THEN
		RAISE EXCEPTION USING ERRCODE = 'QU002', MESSAGE = 'what was decided does not hold any more';
	END IF;
END $body$;

-- finish adds finished days, as a JSON array. A day of the saved history is not replaced by what a book says of it.
CREATE FUNCTION :schema.finish(days text, history boolean) RETURNS void LANGUAGE sql AS $body$
	INSERT INTO :schema.finished_days
		SELECT quota, starts_at, utc_offset, day, calls, denied, expired, used, estimated, peak_reserved, denied_by, alerts, history
		FROM json_to_recordset(days::json) AS one (
			quota text, starts_at timestamptz, utc_offset integer, day date, calls bigint, denied bigint, expired bigint,
			used jsonb, estimated jsonb, peak_reserved jsonb, denied_by jsonb, alerts jsonb)
		ON CONFLICT (quota, starts_at) DO UPDATE SET
			utc_offset = EXCLUDED.utc_offset, day = EXCLUDED.day, calls = EXCLUDED.calls, denied = EXCLUDED.denied,
			expired = EXCLUDED.expired, used = EXCLUDED.used, estimated = EXCLUDED.estimated,
			peak_reserved = EXCLUDED.peak_reserved, denied_by = EXCLUDED.denied_by, alerts = EXCLUDED.alerts
		WHERE NOT finished_days.in_history;
$body$;

-- How full the limits of a book are at a time, of the windows that stand then. A hold is reserved until a tracker has
-- settled it or found it expired. What flows back into a refill is right to one unit. The server cannot guess how few
-- limits and holds a book has: without jit = off it would spend seconds on preparing for very many.
CREATE FUNCTION :schema.status(book json, at timestamptz) RETURNS TABLE (
	limit_text text, unit text, window_text text, used numeric, reserved numeric, max numeric, percent numeric, ends_at timestamptz
) LANGUAGE sql STABLE ROWS 3 SET jit = off AS $body$
WITH account AS (
	SELECT limits.key AS name,
		limits.value->>'unit' AS unit,
		limits.value->>'window' AS period,
		CASE split_part(limits.value->>'window', ' ', 1)
			WHEN 'day' THEN 'budget' WHEN 'week' THEN 'budget' WHEN 'month' THEN 'budget' WHEN 'lifetime' THEN 'budget'
			WHEN 'in' THEN 'in flight' WHEN 'rolling' THEN 'rolling' WHEN 'refill' THEN 'refill' WHEN 'session' THEN 'session'
			ELSE 'every' END AS kind,
		(limits.value->>'max')::numeric AS max,
		coalesce((limits.value->>'used')::numeric, 0) AS used,
		coalesce((limits.value->>'reserved')::numeric, 0) AS reserved,
		(limits.value->>'start')::timestamptz AS starts,
		(limits.value->>'end')::timestamptz AS ends,
		coalesce((limits.value->>'end')::timestamptz <= at, false) AS over,
		coalesce((limits.value->>'opened')::timestamptz, '-infinity') AS opened,
		coalesce(limits.value->'slices', '[]') AS slices,
		CASE WHEN limits.value->>'window' ~ '^(rolling|refill) [0-9hms.]+$'
			THEN extract(epoch FROM split_part(limits.value->>'window', ' ', 2)::interval)::numeric END AS seconds
	FROM json_each(book->'accounts') AS limits
), held AS (
	SELECT granted, amounts, CASE WHEN amounts->>'tokens' IS NULL
		THEN coalesce((amounts->>'input_tokens')::numeric, 0) + coalesce((amounts->>'output_tokens')::numeric, 0)
		ELSE (amounts->>'tokens')::numeric END AS tokens
	FROM json_to_recordset(book->'holds') AS hold (granted timestamptz, amounts json)
), standing AS (
	SELECT account.*,
		CASE kind
			WHEN 'rolling' THEN (SELECT coalesce(sum(slice.used), 0)
				FROM json_to_recordset(slices) AS slice (start timestamptz, used numeric)
				WHERE seconds IS NULL OR extract(epoch FROM slice.start)::numeric > extract(epoch FROM at)::numeric - seconds * 1.02)
			WHEN 'refill' THEN greatest(0, used - flowed)
			ELSE used END AS used_now,
		CASE kind WHEN 'refill' THEN greatest(0, reserved - greatest(0, flowed - used))
		ELSE (SELECT coalesce(sum(CASE unit WHEN 'tokens' THEN tokens ELSE (amounts->>unit)::numeric END), 0)
			FROM held WHERE CASE kind
				WHEN 'every' THEN granted >= greatest(starts, opened)
				WHEN 'session' THEN granted >= greatest(starts, opened)
				WHEN 'rolling' THEN granted >= opened AND (seconds IS NULL
					OR seconds / 50 * floor(extract(epoch FROM granted)::numeric / (seconds / 50)) > extract(epoch FROM at)::numeric - seconds * 1.02)
				ELSE true END)
		END AS reserved_now
	FROM account, LATERAL (SELECT CASE kind WHEN 'refill'
		THEN coalesce(floor(max * greatest(0, extract(epoch FROM at - starts)::numeric) / seconds), 0) END AS flowed) AS flow
)
SELECT name, unit, period,
	CASE WHEN over THEN 0 ELSE used_now END,
	CASE WHEN over AND kind <> 'budget' THEN 0 ELSE reserved_now END,
	max,
	CASE WHEN max > 0 THEN round(100 * CASE WHEN over THEN 0 ELSE used_now END / max, 1) WHEN over OR used_now = 0 THEN 0 ELSE 100 END,
	CASE WHEN NOT over THEN ends END
FROM standing
$body$;

CREATE VIEW :schema.quota_status AS
	SELECT quota, limit_text, unit, window_text, used, reserved, max, percent, ends_at, decided_at AS changed_at
	FROM :schema.books, :schema.status(book, now());
COMMENT ON VIEW :schema.quota_status IS 'how full every limit is; usd is in picodollars';
