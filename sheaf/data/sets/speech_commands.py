"""Speech Commands v0.02: 35 spoken words, 94,824 clips of one second at 16 kHz (Warden, 2018).

The hub's own branch is a loading script, which sheaf does not execute; the parquet lies on the
branch to which the hub converts. Its test part has no clips of most of the words, so the validation
part, other speakers by the set's own list, is the test part here. The long recordings of background
noise (``_silence_``) are left out.
"""

from sheaf.data.readers.huggingface import HubSet

SPEECH_COMMANDS = HubSet(
    repo="google/speech_commands",
    revision="refs/convert/parquet",
    folder="speech_commands/v0.02",
    test="validation",
    without=("_silence_",),
)
