// A recording, played by asciinema's player, which is loaded by this page only.
const box = document.getElementById("player");
AsciinemaPlayer.create(box.dataset.recording, box, {
  fit: "width",
  idleTimeLimit: 2,
  preload: true,
  poster: "npt:0:1",
  theme: "asciinema",
});
