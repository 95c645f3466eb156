"""Reference job in plain Flink SQL over Avro, with the three rules of the pack `three`.

It nests three OVER windows, because all OVER windows of one SELECT must be the same. It drops late payments, restates
no flag, detects no duplicate and stops at a record that it cannot read. On clean, ordered input it flags the same
payments as the risk job.
"""

from schemas.topics import Topics
from stream.job import JobOptions, environment, parse_options, prepare_process, wait

SCORED = "reference.sql"
"""Topic of the decisions, without the prefix."""
COLUMNS = """
    transaction_id STRING NOT NULL, account_id STRING NOT NULL, card_id STRING, amount_minor BIGINT NOT NULL,
    currency STRING NOT NULL, event_time TIMESTAMP(3) NOT NULL, merchant_id STRING NOT NULL,
    payment_method STRING NOT NULL, channel STRING NOT NULL, country STRING, latitude DOUBLE, longitude DOUBLE"""


def source_sql(options: JobOptions) -> str:
    """Return the table of payments without each partition's first record, which activates the risk job's rules."""
    offsets = ";".join(f"partition:{number},offset:1" for number in range(options.partitions))
    return f"""
        CREATE TABLE payments ({COLUMNS}, WATERMARK FOR event_time AS event_time - INTERVAL '1' SECOND) WITH (
            'connector' = 'kafka', 'topic' = '{Topics(prefix=options.prefix).payments_inbound}',
            'properties.bootstrap.servers' = '{options.bootstrap}', 'properties.group.id' = 'reference-sql',
            'scan.startup.mode' = 'specific-offsets', 'scan.startup.specific-offsets' = '{offsets}',
            'scan.bounded.mode' = 'latest-offset',
            'format' = 'avro-confluent', 'avro-confluent.url' = '{options.registry}'
        )"""


def sink_sql(options: JobOptions) -> str:
    """Return the table of decisions, in Avro."""
    return f"""
        CREATE TABLE scored (
            account_id STRING NOT NULL, transaction_id STRING NOT NULL, event_time TIMESTAMP(3) NOT NULL,
            amount_minor BIGINT NOT NULL, currency STRING NOT NULL, merchant_id STRING NOT NULL,
            payment_method STRING NOT NULL, channel STRING NOT NULL, country STRING, score INT NOT NULL,
            rules STRING NOT NULL
        ) WITH (
            'connector' = 'kafka', 'topic' = '{options.prefix}{SCORED}',
            'properties.bootstrap.servers' = '{options.bootstrap}', 'properties.acks' = 'all',
            'properties.linger.ms' = '5', 'properties.batch.size' = '262144', 'properties.compression.type' = 'lz4',
            'sink.delivery-guarantee' = 'at-least-once',
            'key.format' = 'raw', 'key.fields' = 'account_id',
            'value.format' = 'avro-confluent', 'value.avro-confluent.url' = '{options.registry}'
        )"""


def decisions_sql() -> str:
    """Return the query of the three rules: payments in 60 s, the last 50 amounts, the card's last place."""
    return """
        INSERT INTO scored
        SELECT account_id, transaction_id, event_time, amount_minor, currency, merchant_id, payment_method, channel,
            country, GREATEST(velocity * 600, spike * 500, travel * 700),
            CONCAT_WS(',', CASE velocity WHEN 1 THEN 'velocity' END, CASE spike WHEN 1 THEN 'amount_spike' END,
                CASE travel WHEN 1 THEN 'impossible_travel' END)
        FROM (
            SELECT *,
                CASE WHEN near >= 5 THEN 1 ELSE 0 END AS velocity,
                CASE WHEN n >= 5 AND amount_minor >= 10000 AND n * amount_minor > s
                    AND 100 * n * amount_minor >= 300 * s
                    AND CAST(n * amount_minor - s AS DECIMAL(38, 0)) * (n * amount_minor - s)
                        > 25 * (CAST(n AS DECIMAL(20, 0)) * q - CAST(s AS DECIMAL(19, 0)) * s)
                    THEN 1 ELSE 0 END AS spike,
                CASE WHEN is_present AND distance_m >= 300000 AND elapsed_ms <= 86400000
                    AND distance_m * 3600 > 900 * elapsed_ms THEN 1 ELSE 0 END AS travel
            FROM (
                SELECT *, seen - 1 AS n, total - amount_minor AS s, squares - amount_minor * amount_minor AS q,
                    TIMESTAMPDIFF(SECOND, last_time, event_time) * CAST(1000 AS BIGINT)
                        + EXTRACT(MILLISECOND FROM event_time) - EXTRACT(MILLISECOND FROM last_time) AS elapsed_ms,
                    CAST(ROUND(2 * 6371000 * ASIN(SQRT(LEAST(1.0,
                        POWER(SIN(RADIANS(latitude - last_latitude) / 2), 2)
                        + COS(RADIANS(last_latitude)) * COS(RADIANS(latitude))
                        * POWER(SIN(RADIANS(longitude - last_longitude) / 2), 2))))) AS BIGINT) AS distance_m
                FROM (
                    SELECT *, LAG(event_time) OVER card AS last_time, LAG(latitude) OVER card AS last_latitude,
                        LAG(longitude) OVER card AS last_longitude
                    FROM (
                        SELECT *, COUNT(*) OVER amounts AS seen, SUM(amount_minor) OVER amounts AS total,
                            SUM(amount_minor * amount_minor) OVER amounts AS squares,
                            card_id IS NOT NULL AND latitude IS NOT NULL AND channel IN ('POS', 'ATM') AS is_present
                        FROM (
                            SELECT *, COUNT(*) OVER (PARTITION BY account_id ORDER BY event_time
                                RANGE BETWEEN INTERVAL '60' SECOND PRECEDING AND CURRENT ROW) AS near
                            FROM payments
                        )
                        WINDOW amounts AS (PARTITION BY account_id ORDER BY event_time
                            ROWS BETWEEN 50 PRECEDING AND CURRENT ROW)
                    )
                    WINDOW card AS (PARTITION BY card_id, is_present ORDER BY event_time)
                )
            )
        )"""


def main() -> None:
    """Decide the payments that are in the log now, then end."""
    options = parse_options()
    prepare_process(options, jit="")  # all work is done in the JVM, so the second-tier compiler pays off
    _, tables = environment("flink-sql", options)
    tables.execute_sql(source_sql(options))
    tables.execute_sql(sink_sql(options))
    client = tables.execute_sql(decisions_sql()).get_job_client()
    assert client is not None
    wait([client])


if __name__ == "__main__":
    main()
