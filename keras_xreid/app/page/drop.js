// Reads the image here and hands it on as text: nothing is uploaded to a file.
const say = (text, wrong) => {
  if (wrong) props.value = null; // no list of an earlier image beside it
  const line = element.querySelector(".say");
  line.textContent = text;
  line.classList.toggle("wrong", wrong);
};
const take = (file) => {
  if (!file) return;
  const mb = file.size / 1e6;
  if (mb > props.max_mb) {
    say(`${file.name} has ${mb.toFixed(1)} MB: images of up to ${props.max_mb} MB are taken`, true);
    return;
  }
  const reader = new FileReader();
  reader.onerror = () => say(`${file.name} cannot be read: choose another`, true);
  reader.onload = () => {
    props.value = reader.result; // a change, which Gradio answers
    say(file.name, false);
  };
  reader.readAsDataURL(file);
};
element.addEventListener("change", (event) => {
  event.stopPropagation();
  take(event.target.files[0]);
  event.target.value = ""; // so that the same file can be chosen again
});
// Anywhere on the page: beside the frame, the browser would open the image in place of the page.
for (const name of ["dragenter", "dragover", "dragleave", "drop"]) {
  document.addEventListener(name, (event) => {
    if (!event.dataTransfer.types.includes("Files")) return; // text, for a field
    event.preventDefault();
    element.classList.toggle("over", name === "dragenter" || name === "dragover");
    if (name === "drop") take(event.dataTransfer.files[0]);
  });
}
