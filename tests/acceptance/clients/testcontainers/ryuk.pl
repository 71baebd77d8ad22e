# A program in the role of testcontainers' Ryuk: it takes filters over TCP. When the last client has
# disconnected, it removes the containers, networks, volumes and images that have these labels.
use strict;
use warnings;
use IO::Select;
use IO::Socket::INET;
use IO::Socket::UNIX;

$| = 1;

sub ask {
    my ($method, $path) = @_;
    my $socket = IO::Socket::UNIX->new(Peer => "/var/run/docker.sock") or die "no engine: $!";
    print $socket "$method /v1.41$path HTTP/1.0\r\nHost: docker\r\n\r\n";
    local $/;
    return <$socket>;
}

sub matches {
    my ($path, $label, $member) = @_;
    my $filters = "%7B%22label%22:%5B%22$label%22%5D%7D";
    my $answer = ask("GET", "$path" . ($path =~ /\?/ ? "&" : "?") . "filters=$filters");
    my (undef, $body) = split /\r\n\r\n/, $answer, 2;
    return $body =~ /"$member":"((?:sha256:)?[^"]+)"/g;
}

sub removed {
    my ($kind, $path) = @_;
    my ($status) = ask("DELETE", $path) =~ /^HTTP\S+ (\d+)/;
    print "removed $kind $status\n";
}

my $server = IO::Socket::INET->new(LocalPort => 8080, Listen => 16, ReuseAddr => 1) or die $!;
my $select = IO::Select->new($server);
my (%labels, $connected);
print "ryuk: Started!\n";
while (!$connected || $select->count > 1) {
    for my $ready ($select->can_read) {
        if ($ready == $server) {
            $select->add(scalar $server->accept);
            $connected = 1;
        } elsif (defined(my $line = <$ready>)) {
            $line =~ s/\s+$//;
            $labels{$1} = 1 if $line =~ /^label=([\w.=-]+)$/;
            print $ready "ACK\n";
        } else {
            $select->remove($ready);
            close $ready;
        }
    }
}
my $own = `hostname`;
chomp $own;
for my $label (sort keys %labels) {
    for my $id (matches("/containers/json?all=1", $label, "Id")) {
        removed("container", "/containers/$id?force=1&v=1") if $id =~ /^[0-9a-f]{64}$/ && index($id, $own);
    }
    removed("network", "/networks/$_") for grep { /^[0-9a-f]{64}$/ } matches("/networks", $label, "Id");
    removed("volume", "/volumes/$_?force=1") for matches("/volumes", $label, "Name");
    removed("image", "/images/$_?force=1") for grep { /^sha256/ } matches("/images/json", $label, "Id");
}
