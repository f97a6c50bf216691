"""The launcher of a job's process on a device. FLARE's idle process imports it; it does not import torch.

Private parts of FLARE: the attribute ``adapter`` of its ``ProcessHandle``; the adapter's ``poll`` returns the
exit code.
"""

from __future__ import annotations

from typing import Any

from nvflare.apis.job_launcher_spec import JobHandleSpec, JobReturnCode
from nvflare.app_common.job_launcher.client_process_launcher import ClientProcessJobLauncher

from sheaf.fleets.nvflare import job_process


class Handle(JobHandleSpec):  # type: ignore[misc]  # nvflare is untyped
    """The handle of a job's process that reports death by a signal as UNKNOWN.

    FLARE reports it as an execution error, which ends the job on all devices. With UNKNOWN, calls to this
    device time out and the other devices continue.

    Args:
        process: FLARE's ``ProcessHandle``.
    """

    def __init__(self, process: Any) -> None:
        super().__init__()
        self._process = process

    def terminate(self) -> None:
        """Terminate the process."""
        self._process.terminate()

    def poll(self) -> Any:
        """Return the process's ``JobReturnCode``."""
        code = self._process.adapter.poll()
        return JobReturnCode.UNKNOWN if code is not None and code < 0 else self._process.poll()

    def wait(self) -> None:
        """Block until the process ends."""
        self._process.wait()


class CrashTolerantLauncher(ClientProcessJobLauncher):  # type: ignore[misc]
    """FLARE's own launcher, except for the handle and the module of the process."""

    def launch_job(self, job_meta: dict[str, Any], fl_ctx: Any) -> Any:
        """Start the process of a job and return its handle."""
        return Handle(super().launch_job(job_meta, fl_ctx))

    def get_command(self, job_meta: dict[str, Any], fl_ctx: Any) -> str:
        """Return FLARE's command, with ``job_process`` in the place of FLARE's module."""
        command: str = super().get_command(job_meta, fl_ctx)
        return command.replace(f"-m {job_process.WORKER} ", f"-m {job_process.__name__} ")
