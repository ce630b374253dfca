import { accessSync, constants } from "node:fs";
import { delimiter, join } from "node:path";

const NAMES = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

const MAC = ["/Applications/Google Chrome.app/Contents/MacOS/Google Chrome", "/Applications/Chromium.app/Contents/MacOS/Chromium"];

/** The browser of this machine; the suite never downloads one. */
export function chromium(): string {
  const named = process.env["CHROMIUM"];
  const onPath = (process.env["PATH"] ?? "").split(delimiter).flatMap((directory) => NAMES.map((name) => join(directory, name)));
  const candidates = named === undefined || named === "" ? [...onPath, ...MAC] : [named];
  const found = candidates.find(isExecutable);
  if (found === undefined) {
    throw new Error("no Chromium found: install one (Debian: apt-get install chromium), or name its program in CHROMIUM");
  }
  return found;
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
