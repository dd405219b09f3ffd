"""A SageMaker that really runs: training jobs of this machine behind the service's own API.

boto3 and the SageMaker SDK find it by AWS_ENDPOINT_URL_SAGEMAKER; S3, CloudWatch Logs, STS and IAM come from moto. In a test:

    from sagemaker_service import Service

    @pytest.fixture
    def service(tmp_path):
        with Service(tmp_path / "sagemaker") as service:  # its own moto; Service(root, aws=url) takes a running one
            yield service

    def test_it(service, monkeypatch):
        for name, value in service.environment.items():  # endpoints, dummy credentials, region, role, image
            monkeypatch.setenv(name, value)
        service.make_bucket("rightcall")
        service.faults.fail("DescribeTrainingJob", "ThrottlingException", count=9)
        …
        service.interrupt("job-name")                     # a spot interruption
        assert [call.operation for call in service.calls]

Outside of the test's process, so that its jobs outlive a killed client (it dies with the process that started it):

    with ServiceProcess(tmp_path / "sagemaker") as service:
        service.environment, service.control("interrupt", job="job-name"), service.state()["jobs"]

or `PYTHONPATH=tests:tests/support/services python -m sagemaker_service --root DIR --port N`, which writes one line of JSON
(the environment) to stdout, and `curl -d '{"do": "network_away", "seconds": 60}' URL/control`. What can be injected: faults.py.
botocore's own retries (5 attempts as a rule) use up a fault's count too.

Where user namespaces are allowed, a host has a true /opt/ml, a PID 1, a host name (algo-1) and an /etc/hosts that names the
other hosts; elsewhere SM_ML_ROOT names its folder and the hosts are called 127.0.0.1, 127.0.0.2 … in resourceconfig.json.
Channels in Pipe mode and augmented manifests are not emulated (the answer says so); FastFile is treated as File.
"""

from sagemaker_service.api.service import Service
from sagemaker_service.machines.process import ServiceProcess

__all__ = ["Service", "ServiceProcess"]
