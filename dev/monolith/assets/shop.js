const ticks = document.getElementById('ticks');
const events = new EventSource('/events');
events.addEventListener('tick', (event) => {
  ticks.textContent = JSON.parse(event.data).n;
});
addEventListener('pagehide', () => events.close());
