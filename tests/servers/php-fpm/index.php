<?php
// Every request takes 10 ms.
$generation = getenv('ZDR_GENERATION');
if (($_SERVER['REQUEST_URI'] ?? '/') !== '/health') {
    usleep(10000);
}
header("X-Generation: $generation");
echo "generation $generation\n";
