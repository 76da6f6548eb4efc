"""Where and under which circumstances something was measured: parts of a result."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Core:
    """One CPU core.

    Attributes:
        index: Its number.
        mhz: Clock now.
        max_mhz: Highest clock the system admits.
        governor: Frequency governor.
        capacity: Relative compute capacity, 1024 for the fastest core; tells big from little.
    """

    index: int
    mhz: float | None = None
    max_mhz: float | None = None
    governor: str | None = None
    capacity: int | None = None


@dataclass(frozen=True)
class Snapshot:
    """The state of a machine at one moment.

    Attributes:
        time: ISO 8601, UTC.
        cores: Those that are online.
        temperatures: Thermal zone or sensor -> degrees.
        throttled: Counter of throttling -> value, any rise counts; or flag, its name ends with ``now``,
            set is set.
        load: Load average of the last minute.
        memory_free: Bytes available.
        power: Supply: ``mains``, ``battery 87 %`` ...; None where there is none to ask.
        reference_ms: Time of a fixed piece of work on one core; it tells a slower clock where the
            system shows none.
        extra: What the board tells besides: power mode, rails, GPU and memory clocks.
    """

    time: str
    cores: tuple[Core, ...] = ()
    temperatures: dict[str, float] = field(default_factory=dict)
    throttled: dict[str, int] = field(default_factory=dict)
    load: float | None = None
    memory_free: int | None = None
    power: str | None = None
    reference_ms: float | None = None
    extra: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Machine:
    """Where it ran; without names of people, hosts or folders.

    Attributes:
        device: ``local``, ``ssh`` or ``adb``.
        board: Model of the board or computer.
        soc: System on chip.
        cpu: CPU name.
        cores: Number of cores online.
        memory: Bytes of main memory.
        system: Operating system, kernel and architecture.
        gpu: Accelerator, where one is there.
        versions: Python, numpy, OpenCV, edge-deeplab, tools.
    """

    device: str
    board: str = ""
    soc: str = ""
    cpu: str = ""
    cores: int | None = None
    memory: int | None = None
    system: str = ""
    gpu: str = ""
    versions: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Conditions:
    """Under which circumstances the figures hold.

    Attributes:
        before, after: The machine at the start and at the end.
        others: Share of the used cores' time that other processes took meanwhile.
        stolen: Share that the hypervisor took.
        affinity: Cores the processes were allowed to run on.
        pinned: Whether ``--cpus`` set that.
        reference_ms: The fixed piece of work, once a round.
        seconds: Length of the whole run.
    """

    before: Snapshot
    after: Snapshot
    others: float | None = None
    stolen: float | None = None
    affinity: tuple[int, ...] = ()
    pinned: bool = False
    reference_ms: tuple[float, ...] = ()
    seconds: float | None = None
