from functools import partial

from psgd.simulation.agenda import Agenda


def test_things_happen_in_the_order_of_their_moments() -> None:
    agenda, heard = Agenda(), list[tuple[str, float]]()

    def hear(name: str) -> None:
        heard.append((name, agenda.now))

    agenda.after(3.0, partial(hear, "third"))
    agenda.after(1.0, partial(hear, "first"))
    agenda.at(2.0, partial(hear, "second"))
    while agenda.advance():
        pass
    assert heard == [("first", 1.0), ("second", 2.0), ("third", 3.0)]


def test_things_of_one_moment_happen_in_the_order_in_which_they_were_put_down() -> None:
    agenda, heard = Agenda(), list[int]()
    for number in range(20):
        agenda.after(1.0, partial(heard.append, number))
    while agenda.advance():
        pass
    assert heard == list(range(20))


def test_what_is_to_happen_at_once_happens_behind_the_present_and_before_the_future() -> None:
    agenda, heard = Agenda(), list[str]()

    def present() -> None:
        agenda.after(0.0, partial(heard.append, "at once"))
        agenda.at(0.5, partial(heard.append, "of a moment that has passed"))
        heard.append("present")

    agenda.after(1.0, present)
    agenda.after(1.0, partial(heard.append, "same moment, put down later"))
    while agenda.advance():
        pass
    assert heard == ["present", "at once", "of a moment that has passed", "same moment, put down later"]
    assert agenda.now == 1.0


def test_an_empty_agenda_says_so_and_stands_still() -> None:
    agenda = Agenda()
    assert not agenda.advance()
    assert agenda.time() == 0.0
