import { expect, test } from "../support/test.js";

test("SIGTERM to the dashboard that serves, while saving: the page never leaves live", async ({ open, demo }) => {
  const board = await open();
  const before = await board.number();
  const first = await board.replica.innerText();
  await board.forget();
  process.kill((await demo.named(first)).pid, "SIGTERM");
  let saved = 0;
  do {
    await board.save(`saved during a move, ${(saved += 1)}`);
  } while ((await board.replica.innerText()) === first);
  await board.save(`saved after a move, ${(saved += 1)}`);
  await board.shows(before + saved);

  const { status, count } = await board.seen();
  expect(status.map(({ value }) => value).filter((value) => value !== "live" && value !== "moving")).toEqual([]);
  expect(status.at(-1)?.value).toBe("live");
  const numbers = count.map(({ value }) => Number(value.replaceAll(",", "")));
  expect(numbers, "the number never blinks, and never runs backwards").toEqual([...numbers].sort((a, b) => a - b));
  const second = await board.replica.innerText();
  await expect(board.handovers).toHaveCount(1);
  await expect(board.handovers).toHaveAttribute("data-planned", "true");
  await expect(board.handovers).toContainText(new RegExp(`${first} →\\s*to ${second}\\s*planned, \\d+ ms`));
});

test("a dashboard that freezes is left after two and a half beats of silence", async ({ open, demo }) => {
  const board = await open();
  const before = await board.number();
  const first = await board.replica.innerText();
  const { pid } = await demo.named(first);
  await board.forget();
  process.kill(pid, "SIGSTOP");
  await demo.add("stored during the silence");
  await expect(board.replica).not.toHaveText(first);
  await board.shows(before + 1);
  await board.live();
  const { status } = await board.seen();
  expect(status.map(({ value }) => value)).toEqual(["live", "reconnecting", "live"]);
  process.kill(pid, "SIGKILL"); // the demo replaces the dead, not the frozen
});

test("SIGKILL to the dashboard that serves: live again within a second", async ({ open, demo }) => {
  const board = await open();
  const before = await board.number();
  const first = await board.replica.innerText();
  await board.forget();
  process.kill((await demo.named(first)).pid, "SIGKILL");
  await expect(board.replica).not.toHaveText(first);
  await board.live();
  const { status } = await board.seen();
  expect(status.map(({ value }) => value)).toEqual(["live", "reconnecting", "live"]);
  const [, lost, back] = status;
  expect((back?.at ?? Infinity) - (lost?.at ?? 0)).toBeLessThan(1_000);
  await expect(board.handovers).toContainText(/lost, back after \d+ ms/);
  await board.save("saved after a loss");
  await board.shows(before + 1);
});
