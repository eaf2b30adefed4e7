// Where two texts differ, word by word: a longest common subsequence. Nothing here touches the page.

const WORDS = /[\p{L}\p{N}\p{M}]+|[^\s\p{L}\p{N}\p{M}]/gu;
const LINES = /[^\n]+/g;
const MOST = 4000; // of more words than that the lines are compared: time and memory grow with the square

/** Spans {start, end} of `a` that are not in `b`, and of `b` that are not in `a`. */
export function differences(a, b) {
  const long = [a, b].some((text) => spans(text, WORDS).length > MOST);
  const [left, right] = [a, b].map((text) => spans(text, long ? LINES : WORDS).slice(0, MOST));
  const [onlyLeft, onlyRight] = unmatched(left.map((s) => s.text), right.map((s) => s.text));
  return [merged(left, onlyLeft), merged(right, onlyRight)];
}

function spans(text, pattern) {
  return [...text.matchAll(pattern)].map((m) => ({ text: m[0], start: m.index, end: m.index + m[0].length }));
}

/** Numbers of the words on either side that are in no longest common subsequence. */
function unmatched(a, b) {
  let start = 0;
  while (start < a.length && start < b.length && a[start] === b[start]) start += 1;
  let [endA, endB] = [a.length, b.length];
  while (endA > start && endB > start && a[endA - 1] === b[endB - 1]) [endA, endB] = [endA - 1, endB - 1];
  const [n, m] = [endA - start, endB - start];
  const length = new Uint16Array((n + 1) * (m + 1)); // length[i, j]: of the common subsequence of a[i:] and b[j:]
  for (let i = n - 1; i >= 0; i -= 1) {
    for (let j = m - 1; j >= 0; j -= 1) {
      const at = i * (m + 1) + j;
      const same = a[start + i] === b[start + j];
      length[at] = same ? length[at + m + 2] + 1 : Math.max(length[at + m + 1], length[at + 1]);
    }
  }
  const [onlyA, onlyB] = [[], []];
  let [i, j] = [0, 0];
  while (i < n || j < m) {
    const at = i * (m + 1) + j;
    if (i < n && j < m && a[start + i] === b[start + j]) [i, j] = [i + 1, j + 1];
    else if (j === m || (i < n && length[at + m + 1] >= length[at + 1])) onlyA.push(start + i++);
    else onlyB.push(start + j++);
  }
  return [onlyA, onlyB];
}

/** Neighbouring words as one span. */
function merged(words, numbers) {
  const found = [];
  numbers.forEach((number, n) => {
    if (n && numbers[n - 1] === number - 1) found.at(-1).end = words[number].end;
    else found.push({ start: words[number].start, end: words[number].end });
  });
  return found;
}
