"""Speech Commands v0.02: 35 spoken words, 94,824 clips of one second at 16 kHz (Warden, 2018).

The parquet files are on the branch into which the Hub converts datasets, because the main branch is a
loading script, which sheaf does not execute. The published test split lacks most of the words, so the
validation split, which has other speakers than the training split, is the test split here. The long
recordings of background noise (``_silence_``) are left out.
"""

from sheaf.data.readers.huggingface import HubSet

SPEECH_COMMANDS = HubSet(
    repo="google/speech_commands",
    revision="refs/convert/parquet",
    folder="speech_commands/v0.02",
    test="validation",
    without=("_silence_",),
)
