"""A lost answer is asked for again, and only so often."""

from __future__ import annotations

from udvla_ros.nodes import services


class Future:
    def __init__(self, answer):
        self.answer = answer

    def done(self):
        return self.answer is not None

    def result(self):
        return self.answer


class Client:
    """A stand-in that loses its first answers."""

    def __init__(self, lost):
        self.lost, self.calls, self.forgotten = lost, 0, []

    def call_async(self, request):
        self.calls += 1
        return Future(None if self.calls <= self.lost else f"answer to {request}")

    def remove_pending_request(self, future):
        self.forgotten.append(future)


def until(condition, seconds):
    return condition() or None


def test_an_answer_that_comes_is_taken():
    client = Client(lost=0)
    assert services.ask(client, "it", until) == "answer to it"
    assert (client.calls, client.forgotten) == (1, [])


def test_a_lost_answer_is_asked_for_again():
    client = Client(lost=1)
    assert services.ask(client, "it", until) == "answer to it"
    assert (client.calls, len(client.forgotten)) == (2, 1)


def test_a_server_that_never_answers_is_given_up():
    client = Client(lost=99)
    assert services.ask(client, "it", until) is None
    assert client.calls == services.ATTEMPTS
