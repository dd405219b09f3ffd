"""One stage as a SageMaker training job."""
