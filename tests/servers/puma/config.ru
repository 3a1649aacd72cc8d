# The application that puma serves. Every request takes 10 ms.

WORK = 0.010
GENERATION = ENV.fetch("ZDR_GENERATION", "")

run lambda { |env|
  sleep WORK unless env["PATH_INFO"] == "/health"
  [200, { "Content-Type" => "text/plain", "X-Generation" => GENERATION }, ["generation #{GENERATION}\n"]]
}
