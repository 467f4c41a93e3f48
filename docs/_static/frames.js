// Each frame of a widget is as high as its content.
addEventListener("message", (event) => {
  for (const frame of document.querySelectorAll("iframe.widget")) {
    if (frame.contentWindow === event.source && event.data.height) frame.style.height = `${event.data.height + 8}px`;
  }
});
