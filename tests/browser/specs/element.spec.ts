import type { Locator } from "@playwright/test";
import { expect, test } from "../support/test.js";

/** A page of another site with two numbers and the script. */
function html(server: string): string {
  return `<!doctype html><html lang="en"><title>Elsewhere</title>
    <tide-mark feed="texts"></tide-mark> and again <tide-mark feed="texts"></tide-mark>
    <script type="module" src="${server}/tide-mark.js"></script></html>`;
}

test("an element on an allowed site is live, and all of them share one connection", async ({ page, demo, friend }) => {
  await demo.whole();
  friend.html = html(demo.url);
  let sockets = 0;
  page.on("websocket", () => (sockets += 1));
  await page.goto(friend.origin);
  const elements = page.locator("tide-mark");
  const before = (await demo.texts()).length;
  for (const element of await elements.all()) {
    await expect(element).toHaveAttribute("data-status", "live");
    await expect(element.locator("[part=number]")).toHaveText(before.toLocaleString("en"));
  }
  await demo.add("seen elsewhere");
  for (const element of await elements.all()) {
    await expect(element.locator("[part=number]")).toHaveText((before + 1).toLocaleString("en"));
  }
  expect(sockets).toBe(1);
});

test("numbers of all feeds come over one connection, and what there is not is marked", async ({ page, demo, friend }) => {
  await demo.whole();
  friend.html = `<!doctype html><html lang="en"><title>Elsewhere</title>
    <tide-mark id="online" feed="visitors" field="online"></tide-mark>
    <tide-mark id="cpu" feed="servers" key="server-1" field="cpu_usage"></tide-mark>
    <tide-mark id="key" feed="servers" key="server-999" field="cpu_usage"></tide-mark>
    <tide-mark id="field" feed="servers" key="server-1" field="nonsense"></tide-mark>
    <script type="module" src="${demo.url}/tide-mark.js"></script></html>`;
  const sockets: string[] = [];
  page.on("websocket", (socket) => sockets.push(socket.url()));
  await page.goto(friend.origin);
  const number = (id: string): Locator => page.locator(`#${id} [part=number]`);
  await expect(number("online")).toHaveText(/^[1-9]\d*$/);
  await expect(number("cpu")).toHaveText(/^\d{1,3}(\.\d)?$/);
  const first = await number("cpu").innerText();
  await expect(number("cpu")).not.toHaveText(first);
  for (const missing of ["key", "field"]) {
    await expect(number(missing)).toHaveText("–");
    await expect(page.locator(`#${missing}`)).toHaveAttribute("data-missing", missing);
  }
  expect(sockets).toHaveLength(1);
});

test("a table of the user's own is a live number on any page", async ({ page, demo, friend }) => {
  await demo.whole();
  await demo.sql("CREATE TABLE public.orders (status text)", "INSERT INTO public.orders VALUES ('open'), ('open'), ('paid')");
  await demo.run("feed", "add", "orders", "--table", "public.orders", "--where", "status = 'open'");
  friend.html = `<!doctype html><html lang="en"><title>A shop</title>
    <tide-mark feed="orders"></tide-mark><script type="module" src="${demo.url}/tide-mark.js"></script></html>`;
  await page.goto(friend.origin);
  const number = page.locator("tide-mark [part=number]");
  await expect(number).toHaveText("2");
  await demo.sql("INSERT INTO public.orders VALUES ('open'), ('paid')");
  await expect(number).toHaveText("3");
  await demo.sql("UPDATE public.orders SET status = 'paid'");
  await expect(number).toHaveText("0");
  await demo.run("feed", "remove", "orders");
  await demo.sql("DROP TABLE public.orders");
});

test("an element that is added later brings its feed, and the others keep their numbers", async ({ page, demo, friend }) => {
  await demo.whole();
  friend.html = html(demo.url);
  await page.goto(friend.origin);
  const texts = page.locator("tide-mark").first().locator("[part=number]");
  await expect(texts).not.toHaveText("–");
  await page.evaluate(() => {
    const seen: (string | null)[] = ((window as { dashes?: unknown }).dashes = []);
    const number = document.querySelector("tide-mark")?.shadowRoot?.querySelector("[part=number]");
    new MutationObserver(() => {
      if (number?.textContent === "–") seen.push(number.textContent);
    }).observe(number as Node, { childList: true, characterData: true, subtree: true });
    document.body.insertAdjacentHTML("beforeend", `<tide-mark id="cpu" feed="servers" key="server-2" field="cpu_usage"></tide-mark>`);
  });
  await expect(page.locator("#cpu [part=number]")).toHaveText(/^\d/);
  await demo.add("counted by the wider connection");
  await expect(texts).toHaveText((await demo.texts()).length.toLocaleString("en"));
  expect(await page.evaluate(() => (window as { dashes?: unknown }).dashes)).toEqual([]);
});

test("an element on any other site says that it is refused, and why", async ({ page, demo, stranger }) => {
  await demo.whole();
  stranger.html = html(demo.url);
  await page.goto(stranger.origin);
  const element = page.locator("tide-mark").first();
  await expect(element).toHaveAttribute("data-status", "refused");
  await expect(element.locator("[part=note]")).toHaveText(/^refused: .*origin/i);
  await expect(element.locator("[part=number]")).toHaveText("–");
});

test("an element keeps its number when the replica that serves it dies", async ({ page, demo, friend }) => {
  await demo.whole();
  friend.html = html(demo.url);
  await page.goto(friend.origin);
  const element = page.locator("tide-mark").first();
  await expect(element).toHaveAttribute("data-status", "live");
  const number = await element.locator("[part=number]").textContent();
  for (const { pid } of await demo.all("dashboard")) process.kill(pid, "SIGKILL");
  await expect(element).toHaveAttribute("data-status", "reconnecting");
  await expect(element.locator("[part=number]")).toHaveText(number ?? "");
  await expect(element).toHaveAttribute("data-status", "live");
  await demo.add("counted after the loss");
  await expect(element.locator("[part=number]")).toHaveText((Number(number?.replaceAll(",", "")) + 1).toLocaleString("en"));
});
