-- The daily batch features of card_payments. A row has what was known at the start (midnight) of its `day`.
--
-- Convention. A line `-- table: <name>` begins the SELECT for that feature table of the source spec. It can read the
-- feeds, here `events` and `labels` (the columns of the spec's feeds, only for the days that are needed). Its parameters
-- $start and $end are dates: compute the days from $start to the day before $end. It yields the table's entity column,
-- `day`, and the features, which must not be null; use 0 if nothing is known. The step adds `feature_timestamp`, the
-- midnight of `day`.
--
-- Method. Payments are summed per entity and day. Each sum is copied to all later days whose windows include it, and to
-- one day more than the longest window, so that an entity without new payments gets a last row of zeros. Without that
-- row its old numbers would stay the newest. Amounts are summed as decimals, which are exact in any order.

-- table: customer_features
WITH daily AS (
    SELECT customer_id, CAST(event_time AS DATE) AS paid_on, count(*) AS n, sum(CAST(amount AS DECIMAL(18, 4))) AS total
    FROM events
    GROUP BY ALL
),
spread AS (
    SELECT customer_id, paid_on + age AS day, age, n, total
    FROM daily, (SELECT CAST(range AS INTEGER) AS age FROM range(1, 32))
    WHERE paid_on + age >= $start AND paid_on + age < $end
)
SELECT
    customer_id,
    day,
    coalesce(sum(n) FILTER (WHERE age <= 1), 0)::FLOAT AS customer_count_1d,
    coalesce(sum(n) FILTER (WHERE age <= 7), 0)::FLOAT AS customer_count_7d,
    coalesce(sum(n) FILTER (WHERE age <= 30), 0)::FLOAT AS customer_count_30d,
    coalesce(sum(total) FILTER (WHERE age <= 1) / sum(n) FILTER (WHERE age <= 1), 0)::FLOAT AS customer_mean_1d,
    coalesce(sum(total) FILTER (WHERE age <= 7) / sum(n) FILTER (WHERE age <= 7), 0)::FLOAT AS customer_mean_7d,
    coalesce(sum(total) FILTER (WHERE age <= 30) / sum(n) FILTER (WHERE age <= 30), 0)::FLOAT AS customer_mean_30d
FROM spread
GROUP BY customer_id, day

-- Labels are about 7 days late, so the windows end 7 days before the day: payments of [day - 7 - w, day - 7). Only
-- payments whose label was reported before the day count, so a label that is reported later changes no earlier row. A
-- label that is reported again is a correction. It counts from the midnight after its report on, and the earlier label
-- until then.
-- table: terminal_features
WITH dated AS (
    SELECT transaction_id, is_fraud, reported_at, CAST(reported_at AS DATE) AS reported_on FROM labels
),
known AS (
    SELECT transaction_id, is_fraud, reported_on, lead(reported_on, 1, 'infinity') OVER reports AS corrected_on
    FROM dated
    WINDOW reports AS (PARTITION BY transaction_id ORDER BY reported_at, is_fraud)
),
daily AS (
    SELECT
        terminal_id,
        CAST(event_time AS DATE) AS paid_on,
        reported_on,
        corrected_on,
        count(*) AS n,
        sum(is_fraud) AS frauds
    FROM events LEFT JOIN known USING (transaction_id)
    GROUP BY ALL
),
spread AS (
    SELECT
        terminal_id,
        paid_on + age AS day,
        age - 7 AS age,
        CASE WHEN reported_on < paid_on + age AND paid_on + age <= corrected_on THEN n ELSE 0 END AS n,
        CASE WHEN reported_on < paid_on + age AND paid_on + age <= corrected_on THEN frauds ELSE 0 END AS frauds
    FROM daily, (SELECT CAST(range AS INTEGER) AS age FROM range(1, 39))
    WHERE paid_on + age >= $start AND paid_on + age < $end
),
sums AS (
    SELECT
        terminal_id,
        day,
        coalesce(sum(n) FILTER (WHERE age = 1), 0) AS n1,
        coalesce(sum(n) FILTER (WHERE age BETWEEN 1 AND 7), 0) AS n7,
        coalesce(sum(n) FILTER (WHERE age BETWEEN 1 AND 30), 0) AS n30,
        sum(frauds) FILTER (WHERE age = 1) AS frauds1,
        sum(frauds) FILTER (WHERE age BETWEEN 1 AND 7) AS frauds7,
        sum(frauds) FILTER (WHERE age BETWEEN 1 AND 30) AS frauds30
    FROM spread
    GROUP BY terminal_id, day
)
SELECT
    terminal_id,
    day,
    n1::FLOAT AS terminal_count_1d,
    n7::FLOAT AS terminal_count_7d,
    n30::FLOAT AS terminal_count_30d,
    coalesce(frauds1 / nullif(n1, 0), 0)::FLOAT AS terminal_fraud_share_1d,
    coalesce(frauds7 / nullif(n7, 0), 0)::FLOAT AS terminal_fraud_share_7d,
    coalesce(frauds30 / nullif(n30, 0), 0)::FLOAT AS terminal_fraud_share_30d
FROM sums
