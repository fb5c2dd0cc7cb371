"""Stripping orientation: what goes, what stays, and that the sentence still stands."""

import io
import json
import os
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refine.orientation import contains_orientation, strip, strip_lines, strip_many
from refine.orientation_spans import find, forget_sentences, tokenise
from schemas.records import apply_edits

ROOT = Path(__file__).resolve().parents[1]
REAL = ROOT.parent / "shared" / "real"

EDITED = [
    # an opening phrase goes where the sentence stands without it
    ("In the bottom right, we can see a playground.", "We can see a playground."),
    ("At the top of the picture, there is a dense wood.", "There is a dense wood."),
    ("To the east, a canal is visible.", "A canal is visible."),
    ("At 3 o'clock, a white van is parked beside the gate.", "A white van is parked beside the gate."),
    ("From top to bottom there are three fields.", "There are three fields."),
    ("Facing south, the hall has a glass front.", "The hall has a glass front."),
    ("Bottom left: a red roof.", "A red roof."),
    # ... and is replaced where the verb needs it, or where it pairs with another
    ("In the upper left stands a chapel.", "Nearby stands a chapel."),
    ("On its west stands a chapel.", "Next to it stands a chapel."),
    (
        "On the left is a road. On the right is a lake.",
        "On one side is a road. On the other side is a lake.",
    ),
    (
        "on the left side of the image there is a lawn and on the right side there is a car park",
        "on one side of the image there is a lawn and on the other side there is a car park",
    ),
    # relations to an object
    ("To the left of the stadium, a narrow road winds.", "Next to the stadium, a narrow road winds."),
    ("The dormitory is to the north of the canteen.", "The dormitory is next to the canteen."),
    ("North of South Hall is a lawn.", "Next to South Hall is a lawn."),
    ("A white house sits just below the road.", "A white house sits just next to the road."),
    ("Trees grow above and to the left of the house.", "Trees grow next to the house."),
    ("Directly behind the gym is a courtyard.", "Directly next to the gym is a courtyard."),
    ("There are trees on the left and right of the road.", "There are trees on both sides of the road."),
    ("The kiosk stands slightly left of the centre.", "The kiosk stands slightly off the centre."),
    ("On right lower side of house, there is a shed", "On one side of house, there is a shed"),
    ("On the lower middle side of the inn is a shed", "In the middle of one side of the inn is a shed"),
    ("On the building's left side, there is a path.", "On one of the building's sides, there is a path."),
    ("The stadium is ringed by trees on the left, right and bottom.", "The stadium is ringed by trees on three sides."),
    # landmarks stay: a corner is still a corner
    ("A pool lies at the top left corner of the picture.", "A pool lies at one corner of the picture."),
    ("The bottom half of the picture is filled with forest.", "One half of the picture is filled with forest."),
    ("Two roads meet in the lower right-hand corner.", "Two roads meet in one corner."),
    ("Hedges line the left edge and trees the right edge.", "Hedges line one edge and trees the other edge."),
    ("Grass covers nearly the whole right half.", "Grass covers nearly one whole half."),
    ("Trees darken both upper corners.", "Trees darken two corners."),
    ("A path wraps around its left and lower sides.", "A path wraps around two of its sides."),
    # adjectives and subjects
    ("The lower roof is grey and the upper roof is red.", "One roof is grey and the other roof is red."),
    ("The left one is round, the right one is square.", "One is round, the other is square."),
    ("The left is covered by lawn.", "One part is covered by lawn."),
    ("A northern annex adjoins the hall.", "An annex adjoins the hall."),
    ("The building on the left is white, while the building on the right is grey.",
     "One building is white, while the other building is grey."),
    # phrases that complete a clause
    ("A parking lot can be seen to the east.", "A parking lot can be seen nearby."),
    ("A crane stands beside the pier on the right.", "A crane stands beside the pier."),
    ("A large tree, on the right, casts a shadow.", "A large tree casts a shadow."),
    ("A field (top right) is green.", "A field is green."),
    ("A street passes below.", "A street passes by."),
    ("Cars are parked above and below.", "Cars are parked on both sides."),
    # lines and turns
    ("A footpath runs vertically along the western edge of the field.", "A footpath runs along one edge of the field."),
    ("A canal running north-south divides the campus.", "A canal divides the campus."),
    ("A lane runs from east to west.", "A lane runs through."),
    ("A street runs down the right-hand side.", "A street runs along one side."),
    ("A road curves slightly to the left as it nears the bridge.", "A road curves slightly as it nears the bridge."),
    ("A road descends across the left half.", "A road runs across one half."),
    ("The roof, rotated slightly clockwise, is red.", "The roof is red."),
    ("The roof, rotated slightly counter-clockwise, is red.", "The roof is red."),
    ("The track runs counter clockwise around the lawn.", "The track runs around the lawn."),
    ("Cars go round it in an anticlockwise direction.", "Cars go round it in a direction."),
    ("An eastward path crosses it.", "A path crosses it."),
    ("On the left\u2011hand side is a hut, in the upper\u2010right corner a pond.",
     "Nearby is a hut, in one corner a pond."),
    ("(left) a grey hut", "a grey hut"),
    ("Trees fill the upper- and lower-left corners.", "Trees fill two corners."),
    ("Cars park in the top-left and -right corners.", "Cars park in two corners."),
    ("The left- and right-hand sides are lined by trees.", "Both sides are lined by trees."),
    ("The north- and south-facing roofs are red.", "The roofs are red."),
    ("A shed stands at an eleven o'clock position.", "A shed stands nearby."),
    ("At 3 o'clock and at 9 o'clock are huts.", "There are huts."),
    ("Huts stand at 3 o'clock and 9 o'clock.", "Huts stand nearby."),
    ("Huts stand at 3 and 9 o'clock.", "Huts stand nearby."),
    ("Between two and three o'clock is a pond.", "There is a pond."),
    ("From 3 to 5 o'clock runs a road.", "Nearby runs a road."),
    ("A hall stands at 3 o'clock, and at 4 o'clock stands a shed.", "A hall stands nearby, and nearby stands a shed."),
    ("From left to right runs a road.", "Nearby runs a road."),
    ("The path leads north.", "The path leads away."),
    ("One wing points to the west and the other to the south.", "One wing points one way and the other another way."),
    ("The north-facing slope is wooded.", "The slope is wooded."),
    ("An eastern gate closes the yard.", "A gate closes the yard."),
    ("The hall is oriented so that its long side faces west.", "The hall is visible."),
    ("A white roof lies at the rear.", "A white roof lies nearby."),
    ("In the background looms a tower.", "Nearby looms a tower."),
    ("Gravel fills the yard to the hall's left.", "Gravel fills the yard next to the hall."),
    ("Houses lie on either side of the road on the left.", "Houses lie on either side of the road."),
    ("The leftmost of the towers is round.", "One of the towers is round."),
    ("Parking lots lie at both the left and right sides of the hall.", "Parking lots lie on both sides of the hall."),
    ("The left-hand hall has five floors, the right-hand one three.", "One hall has five floors, the other three."),
    ("A slab extends from the top left to the bottom right of the image.", "A slab extends across the image."),
    ("It has a long shape oriented from north to south.", "It has a long shape."),
    ("A car park lies in the lower part of the image, to the south of the hall.",
     "A car park lies in one part of the image, next to the hall."),
    ("A hall is located in the upper-central part of the image.", "A hall is located in one part of the image."),
    ("at the top right there are two cars", "there are two cars"),
    ("On the  left side,  there is a house.", "There is a house."),
    # coordinated, contrasted and listed directions; sentences that said nothing else
    ("The left and right wings of the building are symmetrical.", "The wings of the building are symmetrical."),
    ("The upper and lower terraces are planted with shrubs.", "The terraces are planted with shrubs."),
    ("The left and right ends of the hall are rounded.", "Both ends of the hall are rounded."),
    ("The northern and southern facades are clad in glass.", "The facades are clad in glass."),
    ("Both the eastern and western wings have skylights.", "Both wings have skylights."),
    ("An east and a west wing enclose a courtyard.", "Two wings enclose a courtyard."),
    ("The campus has a left and a right gate.", "The campus has two gates."),
    ("The left, middle and right sections of the roof are blue.", "Three sections of the roof are blue."),
    ("A path runs between the upper and the lower building.", "A path runs between the two buildings."),
    ("A road runs along the left, bottom and right edges of the park.", "A road runs along three edges of the park."),
    ("On its left and right are two small annexes.", "On both sides of it are two small annexes."),
    ("Left and right of the entrance are flower beds.", "On both sides of the entrance are flower beds."),
    ("On the left, right, and behind the library, there are trees.", "Next to the library, there are trees."),
    ("above, below and to the right of the school are fields", "next to the school are fields"),
    ("Above and to the right lies a school.", "Nearby lies a school."),
    ("Below and slightly to the left of the school is a pool.", "Next to the school is a pool."),
    ("The longer left wing has a green roof.", "The longer wing has a green roof."),
    ("The upper, longer wing has a green roof.", "The longer wing has a green roof."),
    ("The two left buildings are connected by a bridge.", "The two buildings are connected by a bridge."),
    ("The building's left wing is longer than its right wing.",
     "One of the building's wings is longer than the other wing."),
    ("The school's northern playground is larger than its southern one.",
     "One of the school's playgrounds is larger than the other."),
    ("Its eastern wall is white and its western wall is grey.",
     "One of its walls is white and the other wall is grey."),
    ("The lower of the two buildings is wider than the upper.", "One of the two buildings is wider than the other."),
    ("The one on the left is wider than the one on the right.", "One is wider than the other."),
    ("The building on the left is wider than the one on the right.", "One building is wider than the other."),
    ("There are more trees on the left than on the right.",
     "There are more trees on one side than on the other side."),
    ("Two courtyards are visible, an upper one with trees and a lower one with a fountain.",
     "Two courtyards are visible, one with trees and the other with a fountain."),
    ("Clockwise from the top are a church, a school and a shop.", "There are a church, a school and a shop."),
    ("From north to south are a gym, a pool and a hall.", "There are a gym, a pool and a hall."),
    ("Going clockwise from the upper left, one sees a pool.", "One sees a pool."),
    ("It is set diagonally, rising from the lower left to the upper right.", ""),
    ("The roof is red. It is aligned north-south. A lawn surrounds it.", "The roof is red. A lawn surrounds it."),
    ("The image is oriented with north at the top.", ""),
    ("To the left there is a church, to the right a school, and at the bottom a park.",
     "On one side there is a church, on another side a school, and on a third side a park."),
    ("the hall has a white roof on the left there is a road and on the right there is a lake",
     "the hall has a white roof on one side there is a road and on the other side there is a lake"),
    ("The mill is at the bottom left, the barn at the top right, and the silo in the middle.",
     "The mill is on one side, the barn on the other side, and the silo in the middle."),
    ("The park is north, the river south.", "The park is on one side, the river on the other side."),
    ("North is a park, south is a river.", "On one side is a park, on the other side is a river."),
    ("There are two car parks: one on the left, the other on the right.",
     "There are two car parks: one on one side, the other on the other side."),
    ("There is a garden to the left of it and a pond to the right of it.",
     "There is a garden on one side of it and a pond on the other side of it."),
    ("Above it is a car park and below it is a road.",
     "On one side of it is a car park and on the other side of it is a road."),
    ("There is a pond below the hall and a road above the church.",
     "There is a pond next to the hall and a road next to the church."),
    ("Its top right corner is rounded. Its bottom left corner is sharp.",
     "One of its corners is rounded. Another of its corners is sharp."),
    ("The roof's top left corner is cut off, its bottom left corner is not.",
     "One of the roof's corners is cut off, another of its corners is not."),
    ("A shop - on the left - is closed.", "A shop is closed."),
    ("Up at the top a pool glitters.", "A pool glitters."),
    ("The path turns left, then right.", "The path turns."),
    ("The road forks: one branch goes left, the other right.",
     "The road forks: one branch goes one way, the other the other way."),
    ("The upper part of the roof is bare.", "One part of the roof is bare."),
    ("Two roads cross, one vertically and one horizontally.",
     "Two roads cross, one in one direction and one in another direction."),
    ("The building is aligned along a north-south axis.", "The building is visible."),
    ("on the upper right is a pond on the lower left is a field",
     "on one side is a pond on the other side is a field"),
    ("The left ones are white, the right ones grey.", "Some are white, the others grey."),
    ("Two of the towers, the upper ones, are linked.", "Two of the towers are linked."),
    ("A hall is seen. The image was taken facing north.", "A hall is seen."),
    # ranges and pairs before a noun; compass abbreviations
    ("A north-south avenue crosses the park.", "An avenue crosses the park."),
    ("The blocks are laid out in east-west rows.", "The blocks are laid out in rows."),
    ("The east/west runway is longer than the north/south one.", "One runway is longer than another."),
    ("Its NE-SW axis follows the river.", "Its axis follows the river."),
    ("A pond lies in the SE corner. The N-S road is wide.", "A pond lies in one corner. The road is wide."),
    ("The west-facing wall has doors, the east-facing one none.", "One wall has doors, the other none."),
    ("A vertical lane meets a horizontal one.", "A lane meets one."),
    # clock faces, distances, degrees
    ("A tower stands at two o'clock from the hall.", "A tower stands near the hall."),
    ("A crane stands in the 10 o'clock direction.", "A crane stands nearby."),
    ("The image shows a tower at 3 o'clock.", "The image shows a tower."),
    ("Three blocks to the left of the park are white.", "Three blocks next to the park are white."),
    ("It is closed due to the northern wing.", "It is closed due to one wing."),
    ("200 metres north of the farm is a pond.", "200 metres from the farm is a pond."),
    ("Three miles to the south there is a dam.", "Three miles away there is a dam."),
    ("A kiosk stands next to it, slightly below.", "A kiosk stands next to it."),
    ("A shed stands a little further to the left.", "A shed stands nearby."),
    ("A barn lies slightly below the road.", "A barn lies next to the road."),
    ("Much lower down, a harbour can be seen.", "A harbour can be seen."),
    ("Directly south lies a pitch.", "Nearby lies a pitch."),
    ("Rotated about 30 degrees clockwise, the gym has a blue roof.", "The gym has a blue roof."),
    ("Tilted slightly to the left, the mill has a red roof.", "The mill has a red roof."),
    ("Looking north, the camera shows a lake.", "The camera shows a lake."),
    ("A cyclist turns right at the crossing.", "A cyclist turns at the crossing."),
    ("A path leads up from the bottom to the gate.", "A path leads to the gate."),
    # the second half leans on the first; three places are more than one and the other
    ("There are four tanks on the left and two on the right of the road.",
     "There are four tanks on one side and two on the other side of the road."),
    ("The lake is to the south of the village and the quarry to the north-east.",
     "The lake is next to the village and the quarry nearby."),
    ("To the left of the tower there is a slide, and to the right there is a row of garages.",
     "Next to the tower there is a slide, and on the other side there is a row of garages."),
    ("The park is bounded by a canal to the east, a road to the west and a hedge to the north.",
     "The park is bounded by a canal on one side, a road on another side and a hedge on a third side."),
    ("Left, right and below the building there are trees.", "Next to the building there are trees."),
    ("At the top of the three pitches is a hall.", "At one end of the three pitches is a hall."),
    # British and American spelling
    ("In the upper centre of the image stands a grey tower.", "In the centre of the image stands a grey tower."),
    ("In the upper center of the image stands a gray tower.", "In the center of the image stands a gray tower."),
    ("A footpath leads towards the left.", "A footpath leads in one direction."),
    ("A footpath leads toward the left.", "A footpath leads in one direction."),
    # characters that nobody sees
    ("On the left side,\x00 there is a pond.", "There is a pond."),
    ("\ufeffOn the left, there is a pond.", "\ufeffThere is a pond."),
    ("A pond is on the left\x07", "A pond is nearby\x07"),
    ("A pond\tis on\tthe left side of\tthe hall.", "A pond\tis on\tone side of\tthe hall."),
    ("ON THE LEFT SIDE OF THE HALL IS A TREE.", "ON ONE SIDE OF THE HALL IS A TREE."),
    # without capitals, stops or blanks
    ("boats in the lower left part", "boats"),
    ("On the left down side , there is a hut", "There is a hut"),
    ("A large buildingOn the right side, there is a pond.", "A large building. There is a pond."),
    ("ON THE LEFT SIDE, THERE IS A HOUSE WITH A RED ROOF.", "THERE IS A HOUSE WITH A RED ROOF."),
    ("On the left.", ""),
]  # fmt: skip

UNTOUCHED = [
    "The upper floors have balconies, and the top floor has a terrace.",
    "A gold dome sits on top of the library, and snow lies on the top of the mountain.",
    "He left the car next to the building, and the gate was left open.",
    "The river makes a right angle right next to the right-angled wing.",
    "The house stands in the centre, surrounded by trees on both sides and on all sides.",
    "A boat passes under the bridge; a red wall is visible below the roof.",
    "A lower wing adjoins the tower, which is lower than the church.",
    "Trees stand in the middle of the upper deck and along the flat-topped hall.",
    "The station is located downtown, and the road winds downhill.",
    "The image is taken from above.",
    "South Hall stands beside a lawn.",
    "It faces Bloor Street West and the East Hall of Boston University West Campus.",
    "At the top of the building is a helipad, and the path climbs the hill.",
    "A sign reads 'Turn Left'.",
    "He left, and right after that the road was closed; the workers left and the gate was shut.",
    "The trees were left and lower branches were cut.",
    "I am on a road. In front of this house, there is a hedge; behind it rises a tower.",
    "spire in the center of image",
    "It is the right choice for a café, in the right place at the right time.",
    "The right and proper place for a statue is the square.",
    "This is all that is left of the brewery, and hardly anything is left of the mill.",
    "The bottom line is that the site is small.",
    "Taxis wait at the bottom of a ramp.",
    "The clock on the tower shows ten o'clock.",
    "Above all, the roof is striking; the yard lies below sea level.",
    "A top-down view of a harbour with an above-ground pool in an upper-class suburb of Western-style villas.",
    "Between Southbank Tower and the Northern Quarter Library, the tram crosses Upper Mill Road.",
    "A tall tower stands here. There are four lower blocks around it.",
    "The chimney is white at the bottom and red at the top.",
    "The upper half of the facade is yellow and the lower half is faced with granite.",
    "The front entrance is next to a courtyard with trees all around, between two roads.",
    "",
]


@pytest.mark.parametrize(("raw", "expected"), EDITED)
def test_orientation_is_edited_out(raw: str, expected: str) -> None:
    done = strip(raw)
    assert done.text == expected
    assert apply_edits(raw, done.edits) == expected
    assert contains_orientation(raw)


@pytest.mark.parametrize("raw", UNTOUCHED)
def test_what_is_no_orientation_is_untouched(raw: str) -> None:
    assert strip(raw).text == raw
    assert strip(raw).edits == ()
    assert contains_orientation(raw) == []


@pytest.mark.parametrize("raw", [raw for raw, _ in EDITED])
def test_stripping_twice_changes_nothing(raw: str) -> None:
    once = strip(raw).text
    assert strip(once).text == once
    assert contains_orientation(once) == []


def test_edits_are_small_sorted_and_apart() -> None:
    raw = "The left side is a lawn, and trees fill the upper right corner. North of the hall is a road."
    edits = strip(raw).edits
    assert [(edit.old, edit.new) for edit in edits] == [
        ("The left side", "One side"),
        ("the upper right corner", "one corner"),
        ("North of", "Next to"),
    ]


def test_mentions_carry_kind_direction_and_frame() -> None:
    tokens = tokenise("In the upper left is a hut, to the north of it a path, and to my right a tree.")
    assert tokens is not None
    mentions = [(m.kind, m.directions, m.frame) for m in find(tokens)]
    assert mentions == [
        ("place", (frozenset({"top", "left"}),), "image"),
        ("beside", (frozenset({"north"}),), "object"),
        ("place", (frozenset({"right"}),), "viewer"),
    ]


BEHIND = "A yard lies behind the mill."


def test_a_platform_says_whether_behind_is_a_place_in_the_image() -> None:
    assert strip(BEHIND, "ground").text == BEHIND
    assert strip(BEHIND, "satellite").text == strip(BEHIND, "drone").text == "A yard lies next to the mill."
    street = "I am on a road. In front of this house is a hedge."
    assert strip(street).text == street
    assert strip(street, "drone").text == "I am on a road. Beside this house is a hedge."
    assert strip("On the left is a hedge.", "ground").text == "Nearby is a hedge."


@given(st.lists(st.sampled_from([raw for raw, _ in EDITED] + UNTOUCHED), max_size=5))
@settings(max_examples=60, deadline=None)
def test_what_was_read_before_changes_nothing(raws: list[str]) -> None:
    raw = " ".join(raws)
    seen = strip(raw)
    forget_sentences()
    assert strip(raw) == seen


def test_strip_many_streams_in_order() -> None:
    def endless() -> object:
        while True:
            yield "On the left, there is a hut."

    stream = strip_many(endless())  # type: ignore[arg-type]
    assert [next(stream).text for _ in range(3)] == ["There is a hut."] * 3


def test_filter_keeps_one_line_per_line() -> None:
    out = io.StringIO()
    strip_lines(["On the left, there is a hut.\n", "\n", "No direction\r\n", "On the left.\n"], out.write)
    assert out.getvalue() == "There is a hut.\n\nNo direction\n\n"


def test_the_filter_answers_each_line_before_the_next_is_sent() -> None:
    command = [sys.executable, "-m", "georefine", "strip"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, text=True) as filter_:
        assert filter_.stdin
        assert filter_.stdout
        for _ in range(3):
            filter_.stdin.write("On the left, there is a hut.\n")
            filter_.stdin.flush()
            assert filter_.stdout.readline() == "There is a hut.\n"
        filter_.stdin.close()
        assert filter_.wait() == 0


HELD = """
import json, random, tracemalloc
from refine import orientation_spans
from refine.orientation import strip_lines
orientation_spans._Sentences.limit, chance = 200, random.Random(0)
def lines(count):
    return (f"On the left of hall{chance.random()}, there is a hut. Its sign reads {i}.\\n" for i in range(count))
strip_lines(lines(800), len)
tracemalloc.start()
held = []
for _ in range(12):
    strip_lines(lines(300), len)
    held.append(tracemalloc.get_traced_memory()[0])
print(json.dumps(held))
"""


def test_memory_stays_flat_over_many_different_lines() -> None:
    """In a process of its own: what other tests have left in caches of words makes their tables grow here or there."""
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    done = subprocess.run([sys.executable, "-c", HELD], cwd=ROOT, env=environment, stdout=subprocess.PIPE, check=True)
    held = json.loads(done.stdout)  # it rises, and falls when all is forgotten: what counts is how high
    grown = max(held[6:]) - max(held[:6])
    assert grown < 300_000, f"{grown} bytes more after 1,800 lines: {held}"


def test_memory_stays_flat_over_lines_of_any_length(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("refine.orientation_spans._Sentences.size", 1 << 16)

    def lines(count: int) -> Iterator[str]:
        return (
            f"On the left of hall{i} there is a hut, " * 200 + f"and a sign{random.random()}\n" for i in range(count)
        )

    random = Random(0)
    strip_lines(lines(20), len)
    tracemalloc.start()
    strip_lines(lines(20), len)
    begin = tracemalloc.get_traced_memory()[0]
    strip_lines(lines(60), len)
    grown = tracemalloc.get_traced_memory()[0] - begin
    tracemalloc.stop()
    assert grown < 1_000_000, f"{grown} bytes more after 60 lines"


@pytest.mark.parametrize("sign", ["=", "_", "(", "!?"])
def test_a_line_of_signs_takes_no_time(sign: str) -> None:
    signs = sign * (20_000 // len(sign))
    begin = time.process_time()
    assert strip(f"On the left, there is a hut. {signs}").text == f"There is a hut. {signs}"
    assert time.process_time() - begin < 5


def test_broken_unicode_passes() -> None:
    raw = "On the left, there is a \ud800 hut."
    assert strip(raw).text == "There is a \ud800 hut."


@given(st.text(max_size=120))
@settings(max_examples=200, deadline=None)
def test_edits_make_the_text_for_any_unicode(raw: str) -> None:
    done = strip(raw)
    assert apply_edits(raw, done.edits) == done.text


WORDS = st.sampled_from(
    [
        "the",
        "a",
        "its",
        "left",
        "right",
        "upper",
        "lower",
        "top",
        "bottom",
        "of",
        "on",
        "in",
        "at",
        "to",
        "from",
        "side",
        "edge",
        "corner",
        "and",
        ",",
        ".",
        ";",
        "north",
        "south-east",
        "above",
        "below",
        "building",
        "is",
        "are",
        "there",
        "stands",
        "road",
        "runs",
        "behind",
        "it",
        "centre",
        "image",
        "front",
        "far",
        "both",
        "down",
        "up",
        "'s",
        "left-hand",
        "The",
        "On",
        "In",
        "with",
        "white",
        "along",
        "across",
    ]
)


@given(st.lists(WORDS, max_size=25))
@settings(max_examples=300, deadline=None)
def test_edits_make_the_text_for_any_tangle_of_directions(words: list[str]) -> None:
    raw = " ".join(words)
    done = strip(raw)
    assert apply_edits(raw, done.edits) == done.text
    assert (done.text == raw) == (not done.edits)


DIRECTION = st.sampled_from(
    ["left", "right", "upper left", "lower right", "top", "bottom", "north", "north-east", "left-hand", "far right"]
)
LANDMARK = st.sampled_from(["side", "edge", "corner", "part", "half"])
OBJECT = st.sampled_from(["the hall", "the red building", "a narrow road", "it", "South Hall", "the centre"])
TEMPLATE = st.sampled_from(
    [
        "On the {d} {l}, there is a pond.",
        "The {d} {l} is a lawn.",
        "In the {d} {l} of the image stands a barn.",
        "A shed stands to the {d} of {o}.",
        "Cars line the {d} {l} of {o}, and trees surround a court.",
        "A barn with a red roof lies on its {d} {l}.",
        "The {d} building is white and a path runs along the {d} {l}.",
        "A park is on the {d} {l}, while a road is on the {d2} {l}.",
        "a lawn on the {d} and {d2} {l}",
    ]
)


@given(TEMPLATE, DIRECTION, DIRECTION, LANDMARK, OBJECT)
@settings(max_examples=400, deadline=None)
def test_composed_sentences_come_out_clean(template: str, d: str, d2: str, landmark: str, thing: str) -> None:
    raw = template.format(d=d, d2=d2, l=landmark, o=thing)
    once = strip(raw).text
    assert contains_orientation(once) == []
    assert strip(once).text == once
    for scar in ("  ", " ,", ",,", "..", " the the ", " a a ", " ."):
        assert scar not in once


def _real(name: str) -> Path:
    path = REAL / name
    if not path.exists():
        pytest.skip(f"{path} is absent: real captions are not part of a public clone")
    return path


NAME_FRAMES = [
    "On the left of {}, there is a pond.",
    "To the north of {} is a road.",
    "In the top right corner, {} has a red roof.",
    "the building on the left is {} and the one on the right is a church",
    "Students of {} park at the bottom of the image.",
    "The roof of {} is on the lower left.",
]


def test_names_stay_whole() -> None:
    for line in _real("names_with_direction_words.txt").read_text(encoding="utf-8").splitlines():
        name = line.split(" ", 1)[1]
        for raw in (f"{name} stands beside a lawn.", f"A lawn lies next to {name}.", f"The image shows {name}.", name):
            assert strip(raw).text == raw
        for frame in NAME_FRAMES:
            done = strip(frame.format(name))
            assert name in done.text
            assert done.edits


def test_real_captions_come_out_clean_and_stable() -> None:
    world = json.loads(_real("university1652-mini/train.json").read_text(encoding="utf-8"))
    captions = [row["caption"] for row in world] + [text for row in world for text in row["sentences"] if text]
    for name in ("geotext_captions", "related_rsitmd_rsicd_satellite_captions", "related_cvgtext_street_captions"):
        rows = _real(f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        captions += [json.loads(row)["text"] for row in rows]
    for raw in captions:
        done = strip(raw)
        assert apply_edits(raw, done.edits) == done.text
        assert contains_orientation(done.text) == []
        assert strip(done.text).text == done.text


def test_annotated_captions_without_orientation_are_untouched() -> None:
    for line in _real("orientation_dev.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if not row["spans"]:
            assert strip(row["text"]).text == row["text"]


@pytest.mark.parametrize(
    ("raw", "wanted"),
    [
        ("Moving from left to right, ", ""),
        ("The road slopes clockwise and", "The road lies there"),
        ("A path joins the road. The Horizontal", "A path joins the road. one direction"),
        ("Immediately to the left of the plaza, a theatre stands.", "Immediately next to the plaza, a theatre stands."),
    ],
)
def test_captions_that_break_off_and_words_of_degree(raw: str, wanted: str) -> None:
    assert strip(raw).text.lower() == wanted.lower()


def test_threads_strip_as_one_does() -> None:
    raws = [f"On the left of hall{n} there is a lawn{n}. A road{n} runs to the north-east of it." for n in range(400)]
    alone = [strip(raw) for raw in raws]
    forget_sentences()
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            assert list(pool.map(strip, raws)) == alone
            forget_sentences()
