"""Divide the rounds of a lane among environments: deficit round-robin, by bytes of documents.

Environments take turns in the order of their ids, and each round begins after the environment where the last round
ended. A turn adds `QUANTUM_BYTES` to the balance of an environment, and lasts until the balance is used up or the
environment has no changes left. A document may overdraw the balance: the environment then passes its turns until the
balance is positive again. So two environments with waiting changes index the same number of bytes, whether in many
small documents or in a few large documents.

While further environments wait, an environment has a single turn in a round. So it has beside an environment whose
changes all fit in a turn, because those become searchable at the end of the round, and a short round ends soon.
Otherwise the turns go on until the round is full, so no capacity is left unused.

The size of a document is known after the document is made, but rows are read in portions. So each row is charged with
an estimate at first: the size of the environment's last documents.
"""

from collections import Counter, deque
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgspec

from indexer.drain.rests import Rests

QUANTUM_BYTES = 64 * 1024
FIRST_ESTIMATE_BYTES = 8 * 1024
MAX_ACCOUNTS = 10_000
"""Accounts kept between rounds. The account that was not used for longest goes first."""


class _Account(msgspec.Struct):
    balance: int = 0
    estimate: int = FIRST_ESTIMATE_BYTES
    """Expected size of the next document, in bytes."""


class _Charge(NamedTuple):
    environment_id: int
    estimate: int


class RoundRobin:
    """The turns of a lane's environments, in a process. The balances last longer than a round."""

    def __init__(self, cursor: int | None = None) -> None:
        self.cursor = cursor
        """The environment with the last document of the last round; None before the first round."""
        self._accounts: dict[int, _Account] = {}
        self._queues: dict[int, deque[str]] = {}
        self._turns: deque[int] = deque()
        self._next_turns: deque[int] = deque()
        self.has_single_turns = self._is_turn_begun = False
        self._has_taken = False
        self._charges: dict[str, _Charge] = {}
        self.bytes = Counter[int]()
        """Size of the round's documents by environment."""
        self._unserved: dict[int, int] = {}
        """The number of consumers without a document, by environment that had no whole turn in this round."""
        self.rests = Rests()

    @property
    def is_everyone_served(self) -> bool:
        """Whether every environment had a turn in this round: `QUANTUM_BYTES`, or all of its documents."""
        return not self._unserved

    @property
    def left(self) -> int:
        """The number of consumers in this round without a document."""
        return len(self._charges) + sum(map(len, self._queues.values()))

    def begin(self, queues: Mapping[int, Iterable[str]], *, others_wait: bool) -> None:
        """Begin a round.

        Args:
            queues: by environment, in the order of the turns, the ids of consumers, the longest waiting first.
            others_wait: whether further environments wait, so that each environment has a single turn.
        """
        for environment, estimate in self._charges.values():
            self._accounts[environment].balance += estimate
        self._charges, self._has_taken = {}, False
        self.bytes.clear()
        self.rests.note_changes(queues)
        self._queues = {environment: deque(ids) for environment, ids in queues.items()}
        self._unserved = {environment: len(queue) for environment, queue in self._queues.items()}
        self._turns, self._next_turns = deque(self._queues), deque()
        is_light = set()
        for environment, queue in self._queues.items():
            account = self._accounts.pop(environment, None) or _Account()
            account.balance = min(account.balance, QUANTUM_BYTES)
            self._accounts[environment] = account
            is_light.add(len(queue) * account.estimate <= QUANTUM_BYTES)
        self.has_single_turns = others_wait or len(is_light) > 1
        while len(self._accounts) > max(MAX_ACCOUNTS, len(self._queues)):
            del self._accounts[next(iter(self._accounts))]
        self._is_turn_begun = False

    def take(self, rows: int, size: int) -> list[str]:
        """Return the next consumers to index, up to `rows`, and with documents of about `size` bytes in all.

        An empty list is the end of the round.
        """
        taken: list[str] = []
        while self._turns and len(taken) < rows and size > 0:
            environment = self._turns[0]
            queue, account = self._queues[environment], self._accounts[environment]
            if not self._is_turn_begun:
                account.balance += QUANTUM_BYTES
                self._is_turn_begun = True
            while queue and account.balance > 0 and len(taken) < rows and size > 0:
                consumer = queue.popleft()
                self._charges[consumer] = _Charge(environment, account.estimate)
                account.balance -= account.estimate
                size -= account.estimate
                taken.append(consumer)
                self._has_taken = True
            if not queue or account.balance <= 0:
                self._end_turn()
        return taken

    def charge(self, consumer: str, size: int) -> None:
        """Replace the estimate for a taken consumer by the size of the document in bytes."""
        environment, estimate = self._charges.pop(consumer)
        account = self._accounts[environment]
        account.balance += estimate - size
        account.estimate = max(1, (account.estimate + size) // 2)
        self.bytes[environment] += size
        self.cursor = environment
        unserved = self._unserved.pop(environment, 1) - 1
        if unserved and self.bytes[environment] < QUANTUM_BYTES:
            self._unserved[environment] = unserved

    def _end_turn(self) -> None:
        environment = self._turns.popleft()
        if self._queues[environment]:
            self._next_turns.append(environment)
        else:
            # Unused credit does not last, otherwise an environment could save credit for a burst.
            self._accounts[environment].balance = min(self._accounts[environment].balance, 0)
        # While every environment is overdrawn, the turns go on, because a round must not end without a document.
        if not self._turns and not (self.has_single_turns and self._has_taken):
            self._turns, self._next_turns = self._next_turns, self._turns
        self._is_turn_begun = False
