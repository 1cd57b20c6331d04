from keras_sasa.profile.command import main

if __name__ == "__main__":
    main()
