// What needs a script: copying, sending files, going on with and looking again at what is under way.
"use strict";

for (const button of document.querySelectorAll("[data-copy]")) {
  if (!navigator.clipboard) continue;
  button.hidden = false;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(button.parentElement.querySelector("code").textContent);
    button.textContent = "Copied";
  });
}

for (const form of document.querySelectorAll("[data-upload]")) {
  form.hidden = false;
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const said = form.querySelector("output");
    const button = form.querySelector("button");
    const say = (text, isBad) => {
      said.textContent = text;
      said.className = isBad ? "bad" : "";
      button.disabled = !isBad;
    };
    say("Sending…", false);
    const query = new URLSearchParams();
    for (const field of form.elements) {
      if (field.name && field.type !== "file" && field.value) query.set(field.name, field.value);
    }
    const file = form.elements.file.files[0];
    try {
      const answer = await fetch(`${form.dataset.upload}?${query}`, {
        method: "POST",
        body: file,
        headers: {
          "X-Form-Token": form.dataset.formToken,
          "Content-Type": file.type || "application/octet-stream",
        },
      });
      if (answer.ok) {
        location.assign(answer.headers.get("Location"));
        return;
      }
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      say(page.querySelector(".notice")?.textContent || `It failed (${answer.status}).`, true);
    } catch (error) {
      say(`It did not arrive: ${error.message}`, true);
    }
  });
}

document.querySelector("[data-go-on]")?.requestSubmit();

if ("refresh" in document.body.dataset) setTimeout(() => location.reload(), 1000);
