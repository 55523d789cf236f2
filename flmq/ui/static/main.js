document.getElementById("view").textContent = "flmq";
