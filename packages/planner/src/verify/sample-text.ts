/**
 * What models are compared on when no text is given: prose, a list, numbers, code and other scripts, so that many
 * kinds of tokens occur.
 */
export const SAMPLE_TEXT = `The lighthouse keeper wrote down the weather every evening, although nobody had asked him to.
On the third of March he noted: "Wind from the west, 14 knots; two ships, one of them listing badly."

1. Check the lamp.
2. Wind the clock (7 turns, not 8).

function area(radius) { return Math.PI * radius ** 2; }

Der Hafen liegt im Süden der Stadt. 港口在城市的南边。`;
