"""What touches the world: disk, processes, S3, SageMaker, MLflow. Thin Prefect tasks, one subject a file."""

import tasks.machine.environment  # noqa: F401  first: Prefect, MLflow and GX read their settings when they are imported
