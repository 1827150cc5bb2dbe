PRESENT: int
UNDECIDED: int

def store_batch(
    objects_fd: int,
    contents: tuple[bytes, ...],
    paths: tuple[bytes, ...],
    digests: tuple[bytes, ...],
    algorithm: int,
    enable: bool,
    secure: bool,
    /,
) -> list[int]: ...
def name_batch(objects_fd: int, fds: tuple[int, ...], paths: tuple[bytes, ...], /) -> list[int]: ...
