// Dragging by mouse, finger or pen. What is dragged needs `touch-action: none` in its style, or a finger scrolls the page.

const SLACK = 6; // pixels that a click may tremble

/** Let `element` be dragged: `over(x, y)` while it moves, then `drop(x, y)`; or `over(null)` when it is given up. */
export function draggable(element, { over, drop }) {
  element.addEventListener("pointerdown", (down) => {
    if (down.button || !down.isPrimary) return;
    const life = new AbortController();
    const { signal } = life;
    let ghost = null;
    const end = () => {
      life.abort();
      ghost?.remove();
    };
    const move = (event) => {
      const [x, y] = [event.clientX - down.clientX, event.clientY - down.clientY];
      if (!ghost && Math.hypot(x, y) < SLACK) return;
      ghost ??= ghostOf(element);
      ghost.style.translate = `${x}px ${y}px`;
      over(event.clientX, event.clientY);
    };
    const up = (event) => {
      end();
      if (!ghost) return;
      swallowClick();
      drop(event.clientX, event.clientY);
    };
    const giveUp = () => {
      end();
      over(null);
    };
    document.addEventListener("pointermove", move, { signal });
    document.addEventListener("pointerup", up, { signal });
    document.addEventListener("pointercancel", giveUp, { signal });
    document.addEventListener("keydown", (event) => event.key === "Escape" && giveUp(), { signal });
  });
}

/** A picture of the element that follows the pointer and takes no events. */
function ghostOf(element) {
  const { left, top, width, height } = element.getBoundingClientRect();
  const ghost = element.cloneNode(true);
  ghost.classList.add("ghost");
  ghost.setAttribute("aria-hidden", "true");
  Object.assign(ghost.style, { left: `${left}px`, top: `${top}px`, width: `${width}px`, height: `${height}px` });
  (element.closest(".prefloop") ?? document.body).append(ghost);
  return ghost;
}

/** The end of a drag is no click on what lies there. */
function swallowClick() {
  const swallow = (event) => event.stopPropagation();
  document.addEventListener("click", swallow, { capture: true, once: true });
  setTimeout(() => document.removeEventListener("click", swallow, { capture: true }));
}
