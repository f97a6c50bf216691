"""How a device starts the process of a job. Imported by the waiting device: it must not import torch."""

from __future__ import annotations

from typing import Any

from nvflare.apis.job_launcher_spec import JobHandleSpec, JobReturnCode
from nvflare.app_common.job_launcher.client_process_launcher import ClientProcessJobLauncher


class _Handle(JobHandleSpec):  # type: ignore[misc]  # nvflare is untyped
    """A job's process, whose death by a signal says nothing about the job.

    FLARE would take it for a failure of the job and end it on all devices. As it is, the calls to this device
    go unanswered, and the others go on.
    """

    def __init__(self, process: Any) -> None:
        super().__init__()
        self._process = process

    def terminate(self) -> None:
        self._process.terminate()

    def poll(self) -> Any:
        code = self._process.adapter.poll()
        return JobReturnCode.UNKNOWN if code is not None and code < 0 else self._process.poll()

    def wait(self) -> None:
        self._process.wait()


class PatientLauncher(ClientProcessJobLauncher):  # type: ignore[misc]
    """Starts jobs as FLARE's own launcher does."""

    def launch_job(self, job_meta: dict[str, Any], fl_ctx: Any) -> Any:
        """Starts the process and returns its handle."""
        return _Handle(super().launch_job(job_meta, fl_ctx))
