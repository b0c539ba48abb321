-- What Debezium needs, and the role that may do no more; and one for whoever watches its replication slot, which every
-- role may see. Running it again changes nothing. The roles' passwords are set by `python -m cdc setup`.

DO $$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'streamforge_capture') THEN
    CREATE ROLE streamforge_capture LOGIN REPLICATION;
  END IF;
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'streamforge_monitor') THEN
    CREATE ROLE streamforge_monitor LOGIN;
  END IF;
END
$$;

CREATE SCHEMA IF NOT EXISTS capture;

-- A row here asks Debezium for something: `python -m cdc snapshot`. Debezium marks here, too, from where to where a
-- chunk of such a snapshot was read; old rows are of no use.
CREATE TABLE IF NOT EXISTS capture.signal (
  id   varchar(64) PRIMARY KEY,
  type varchar(32) NOT NULL,
  data varchar(2048)
);

-- Written by Debezium every few seconds: without a change of its own tables a slot would hold the WAL of all others.
CREATE TABLE IF NOT EXISTS capture.heartbeat (
  only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  beat_at  timestamptz NOT NULL DEFAULT now()
);
INSERT INTO capture.heartbeat DEFAULT VALUES ON CONFLICT DO NOTHING;

GRANT USAGE ON SCHEMA public, capture TO streamforge_capture;
GRANT SELECT ON public.products, public.customers, public.orders, public.order_items, public.inventory_movements
  TO streamforge_capture;
GRANT SELECT, INSERT ON capture.signal TO streamforge_capture;
GRANT SELECT, UPDATE ON capture.heartbeat TO streamforge_capture;

DO $$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_publication WHERE pubname = 'streamforge') THEN
    CREATE PUBLICATION streamforge;
  END IF;
END
$$;
ALTER PUBLICATION streamforge SET TABLE
  public.products, public.customers, public.orders, public.order_items, public.inventory_movements,
  capture.signal, capture.heartbeat;
