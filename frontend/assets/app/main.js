// What every view needs; the terminal's modules do nothing where there is no terminal.
import { colours } from "./colours.js";
import { notices } from "./notice.js";
import { menus } from "./menu.js";
import { rename } from "./rename.js";
import { swaps } from "./swaps.js";
import { times } from "./times.js";
import { themeSwitch } from "./theme-switch.js";
import { terminal } from "./terminal.js";

colours();
themeSwitch();
notices();
menus();
rename();
swaps();
times();
terminal();
