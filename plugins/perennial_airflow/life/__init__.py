"""The life of models as Airflow sees it: events of steps, and a summary per model. The pages show them."""
