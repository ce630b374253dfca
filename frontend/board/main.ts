import { mount } from "svelte";
import Board from "./parts/Board.svelte";

const target = document.getElementById("board");
if (!target) throw new Error("the page has no element with the id board");

// `?wall`: only the number and its status, for a screen that nobody types at.
const wall = new URLSearchParams(location.search).has("wall");
mount(Board, { target, props: { wall } });
