"""What every HTTP door of ours needs: who may enter, how errors are told, the listening socket."""
