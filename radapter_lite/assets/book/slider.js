// Moves what slider.py has computed: a frame for each step of the slider, none of it computed here.
const data = JSON.parse(document.getElementById("frames").textContent);
const slider = document.getElementById("alpha");
const play = document.getElementById("play");
const charts = document.querySelectorAll(".charts > div > svg");
const cards = document.querySelectorAll(".examples li");
const percent = (value) => value.toFixed(1) + "%";

function show(step) {
  const alpha = (step / (data.steps - 1)).toFixed(2);
  document.getElementById("value").textContent = "α = " + alpha;
  slider.setAttribute("aria-valuetext", "alpha " + alpha);
  for (const [name, values] of Object.entries(data.numbers))
    document.getElementById(name).textContent = percent(values[step]);
  charts.forEach((svg, number) => {
    const { rule, points } = data.charts[number];
    const line = svg.querySelector("line[stroke-dasharray='3 3']");
    if (rule) for (const end of ["x1", "x2"]) line.setAttribute(end, rule[step]);
    svg.querySelectorAll("circle").forEach((circle, point) => {
      circle.setAttribute("cx", points[point][step][0]);
      circle.setAttribute("cy", points[point][step][1]);
    });
  });
  cards.forEach((card, number) => {
    const { truth, top } = data.examples[number];
    const right = top[step][0][0] === truth;
    card.style.setProperty("--mark", right ? data.right : data.wrong);
    const lines = card.querySelectorAll("p.top");
    const bars = card.querySelectorAll(".bar > i");
    top[step].forEach(([label, share], place) => {
      const mark = place ? "" : right ? "✓ " : "✗ ";
      lines[place].textContent = mark + data.classes[label] + " " + share + "%";
      bars[place].style.width = share + "%";
      bars[place].style.background = place ? "" : right ? data.right : data.wrong;
    });
  });
  const changed = data.examples.filter(({ top }) => top[step][0][0] !== top[0][0][0]).length;
  document.getElementById("changed").textContent = changed + " of " + cards.length;
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
  if (+slider.value === data.steps - 1) slider.value = 0;
  timer = setInterval(() => {
    slider.value = +slider.value + 1;
    show(+slider.value);
    if (+slider.value === data.steps - 1) stop();
  }, 40);
});
slider.addEventListener("input", () => show(+slider.value));
show(+slider.value);
