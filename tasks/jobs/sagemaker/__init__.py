"""One stage as a SageMaker training job.

archives.py  model.tar.gz and output.tar.gz, extracted safely
backend.py   a job found or created, waited for, taken
endings.py   how a job ended, and what to do about it
logs.py      CloudWatch's lines, each once
request.py   the CreateTrainingJob request, through ModelTrainer
service.py   the service's errors, with what to do about each
stopping.py  the hook that stops the jobs of a cancelled run
waiting.py   polls, tails, looks whether the run was cancelled
"""
