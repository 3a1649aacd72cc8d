# The application that Starlet serves. Every request takes 10 ms.
use strict;
use warnings;
use Time::HiRes;

my $generation = $ENV{ZDR_GENERATION} // '';

sub {
    my $env = shift;
    Time::HiRes::sleep(0.010) unless $env->{PATH_INFO} eq '/health';
    my $body = "generation $generation\n";
    return [200, ['X-Generation' => $generation, 'Content-Length' => length $body], [$body]];
};
