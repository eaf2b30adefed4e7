// A ranking while it is being made: groups of places, best first; the places of one group are tied. A place in no group
// is not ranked. Every function returns new groups.

/** The groups without `place`. */
export function without(groups, place) {
  return groups.map((group) => group.filter((p) => p !== place)).filter((group) => group.length);
}

/** `place` as a group of its own before the group `gap` of `groups`. */
export function before(groups, gap, place) {
  return groups.map((group) => group.filter((p) => p !== place)).toSpliced(gap, 0, [place]).filter((group) => group.length);
}

/** `place` tied with the group `group`. */
export function into(groups, group, place) {
  const others = groups[group].filter((p) => p !== place);
  if (!others.length) return groups;
  return without(groups, place).map((g) => (g.includes(others[0]) ? [...g, place].sort((a, b) => a - b) : g));
}

/** `place` half a step better (-1) or worse (1): from alone to tied with the neighbours, from tied to alone beside them. */
export function stepped(groups, place, step) {
  const at = groups.findIndex((group) => group.includes(place));
  if (groups[at].length > 1) return before(groups, step < 0 ? at : at + 1, place);
  return groups[at + step] ? into(groups, at + step, place) : groups;
}

/** The groups `g` - 1 and `g` as one. */
export function joined(groups, g) {
  return groups.toSpliced(g - 1, 2, [...groups[g - 1], ...groups[g]]);
}

/** The group `g` parted before its `n`th place. */
export function parted(groups, g, n) {
  return groups.toSpliced(g, 1, groups[g].slice(0, n), groups[g].slice(n));
}

/** The rank of a place, 1 = best; 0 if it has none. */
export function rankOf(groups, place) {
  return groups.findIndex((group) => group.includes(place)) + 1;
}

/** What is sent for `k` places: those without a group share the last rank, and are named. */
export function answerOf(groups, k) {
  const places = [...Array(k).keys()];
  const unranked = places.filter((place) => !rankOf(groups, place));
  return { ranks: places.map((place) => rankOf(groups, place) || groups.length + 1), unranked };
}

/** The groups that an answer came from. */
export function groupsOf({ ranks, unranked }) {
  const groups = [];
  ranks.forEach((rank, place) => {
    if (!unranked.includes(place)) (groups[rank - 1] ??= []).push(place);
  });
  return groups.filter(Boolean);
}
