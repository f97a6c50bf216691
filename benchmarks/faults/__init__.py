"""Test a run on a real fleet under faults, on a rehearsed fleet of three devices.

Each case starts a run as a user does, kills or stops one process during a certain call, and waits for the
end (after a fault of the cloud, it resumes the run with --resume). ``equal`` is whether the weights equal
those of the undisturbed run, bit for bit; ``lost_s`` the additional seconds; ``left_out`` the devices that
were skipped, by call.

Run: python -m benchmarks.faults [CASE ...]
"""
