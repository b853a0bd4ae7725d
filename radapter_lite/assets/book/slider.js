// Shows what publish/book.py has made beforehand: a picture for each stop of the slider, none of it computed here.
const frames = JSON.parse(document.getElementById("frames").textContent);
const slider = document.getElementById("alpha");
const play = document.getElementById("play");

function show(step) {
  const alpha = (step / (frames.length - 1)).toFixed(2);
  document.getElementById("value").textContent = "α = " + alpha;
  slider.setAttribute("aria-valuetext", "alpha " + alpha);
  document.getElementById("picture").innerHTML = frames[step];
}

let timer = null;
function stop() {
  clearInterval(timer);
  timer = null;
  play.textContent = "▶";
  play.setAttribute("aria-label", "play");
}
play.addEventListener("click", () => {
  if (timer) return stop();
  play.textContent = "⏸";
  play.setAttribute("aria-label", "pause");
  if (+slider.value === frames.length - 1) slider.value = 0;
  timer = setInterval(() => {
    slider.value = +slider.value + 1;
    show(+slider.value);
    if (+slider.value === frames.length - 1) stop();
  }, 80);
});
slider.addEventListener("input", () => show(+slider.value));
show(+slider.value);
