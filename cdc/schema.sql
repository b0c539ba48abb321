-- The shop's tables. Money is in minor units. Running it again changes nothing.
-- REPLICA IDENTITY FULL: changes carry the whole old row, so that whoever reads them can take back what it counted.

CREATE TABLE IF NOT EXISTS public.products (
  product_id          text PRIMARY KEY,
  name                text NOT NULL,
  category            text NOT NULL,
  price_minor         bigint NOT NULL CHECK (price_minor >= 0),
  currency            char(3) NOT NULL DEFAULT 'TRY',
  stock               integer NOT NULL,
  low_stock_threshold integer NOT NULL DEFAULT 10,
  updated_at          timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE IF NOT EXISTS public.customers (
  customer_id text PRIMARY KEY,
  email       text,
  full_name   text,
  phone       text,
  region      text,
  created_at  timestamptz NOT NULL DEFAULT now(),
  updated_at  timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE IF NOT EXISTS public.orders (
  order_id    text PRIMARY KEY,
  customer_id text NOT NULL REFERENCES public.customers,
  status      text NOT NULL CHECK (status IN ('CREATED', 'CONFIRMED', 'SHIPPED', 'DELIVERED', 'CANCELLED', 'REFUNDED')),
  total_minor bigint NOT NULL,
  currency    char(3) NOT NULL,
  created_at  timestamptz DEFAULT now(),
  updated_at  timestamptz DEFAULT now()
);
CREATE INDEX IF NOT EXISTS orders_customer_id ON public.orders (customer_id);

-- What was bought stays as it was when its product is deleted or renamed: no reference to products.
CREATE TABLE IF NOT EXISTS public.order_items (
  order_id         text REFERENCES public.orders ON DELETE CASCADE,
  line_no          integer,
  product_id       text NOT NULL,
  quantity         integer CHECK (quantity > 0),
  unit_price_minor bigint,
  PRIMARY KEY (order_id, line_no)
);

-- products.stock is the truth. The transaction that inserts a movement changes it too.
CREATE TABLE IF NOT EXISTS public.inventory_movements (
  movement_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  product_id  text NOT NULL REFERENCES public.products ON UPDATE CASCADE,
  delta       integer NOT NULL,
  reason      text NOT NULL CHECK (reason IN ('SALE', 'RESTOCK', 'RETURN', 'CORRECTION')),
  order_id    text,
  created_at  timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX IF NOT EXISTS inventory_movements_product_id ON public.inventory_movements (product_id);

ALTER TABLE public.products REPLICA IDENTITY FULL;
ALTER TABLE public.customers REPLICA IDENTITY FULL;
ALTER TABLE public.orders REPLICA IDENTITY FULL;
ALTER TABLE public.order_items REPLICA IDENTITY FULL;
ALTER TABLE public.inventory_movements REPLICA IDENTITY FULL;
