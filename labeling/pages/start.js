// The labeling page on a page of its own.

import { start } from "./label.js";

start(document.querySelector(".prefloop"));
